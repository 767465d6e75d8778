// SPDX-License-Identifier: Apache-2.0
//
// An export as a chain: NAME.g1.qcow2 is full, NAME.g2.qcow2 has what changed
// since and NAME.g1.qcow2 as its backing file, and so on; each is a generation
// that can be opened. Nothing is written to a file that was committed, but when
// the oldest generation goes: then the second one's changes are written into
// the full file by a shadow root, and it takes the second one's name. At every
// instant each name that is kept leads to its own generation.
#ifndef SNAPSYNC_AGENT_TARGETS_QCOW2_CHAIN_TARGET_H_
#define SNAPSYNC_AGENT_TARGETS_QCOW2_CHAIN_TARGET_H_

#include <memory>
#include <string>

#include "agent/targets/qcow2_target.h"
#include "agent/targets/target.h"

namespace snapsync {

std::unique_ptr<Target> MakeQcow2ChainTarget(const std::string& path,
                                             const Qcow2Options& options,
                                             FolderOpener open_folder);

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_TARGETS_QCOW2_CHAIN_TARGET_H_
