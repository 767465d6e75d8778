// SPDX-License-Identifier: Apache-2.0
//
// Makes one file of two: a full image and the overlay that rests on it.
#ifndef SNAPSYNC_AGENT_TARGETS_QCOW2_FOLD_H_
#define SNAPSYNC_AGENT_TARGETS_QCOW2_FOLD_H_

#include <string>

#include "absl/status/status.h"
#include "agent/targets/qcow2_target.h"
#include "common/block/host_folder.h"

namespace snapsync {

// Writes what `overlay` has into `full`, by a shadow root: `full` becomes, at
// once, what the overlay and it were together; then it takes the overlay's
// name. After a crash at any moment `overlay` reads as it did, and the same
// call ends it. kBusy when another process has `full` open.
absl::Status FoldOverlay(const Qcow2Options& options, HostFolder& folder,
                         const std::string& full, const std::string& overlay);

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_TARGETS_QCOW2_FOLD_H_
