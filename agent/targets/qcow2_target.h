// SPDX-License-Identifier: Apache-2.0
//
// An export: a QCOW2 file that holds the newest generation, for others to open
// (agent/targets/target.h has the contract).
//
//   first, or full    written to NAME.part, which every reader refuses until it
//                     is whole, and committed by a rename
//   incremental       written into the same file by a shadow root
//                     (common/qcow2/image_update.h): NAME stays the generation
//                     before, and readable, until one sector changes it
//   chain             one file for each generation, the oldest one full, the
//                     others overlays of the one before
//
// Beside each lies a journal as long as it is written (NAME.part.journal,
// NAME.update.journal).
//
// A seal is what the file says of itself (common/qcow2/identity.h): the
// generation, that no other program wrote to it since, and that its header is,
// to the byte, what was written. QEMU's locks keep its programs from writing to
// a file that is updated; they may read it until the commit.
#ifndef SNAPSYNC_AGENT_TARGETS_QCOW2_TARGET_H_
#define SNAPSYNC_AGENT_TARGETS_QCOW2_TARGET_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "agent/targets/target.h"
#include "common/block/host_folder.h"

namespace snapsync {

struct Qcow2Options {
  enum class Compression { kNone, kZlib, kZstd };

  // Of new files, bytes: 4 KiB to 2 MiB, a power of two. A file that is updated
  // keeps its own.
  uint64_t cluster_size = uint64_t{64} << 10;
  // A file that is updated takes kNone, and its own.
  Compression compression = Compression::kNone;
  // Of the disk; 0: the source's. What the source has not reads as zeroes.
  uint64_t virtual_size = 0;
  // Which replication it belongs to; an export of another one is no base.
  std::string replication;
  // PATH is NAME.qcow2; the files are NAME.g1.qcow2, NAME.g2.qcow2, ...
  bool chain = false;
  // Write with threads of its own (the tests that cut the power: without).
  bool write_behind = true;
  // For people to read. Empty: the clock.
  std::function<uint64_t()> unix_seconds = {};
};

std::unique_ptr<Target> MakeQcow2Target(const std::string& path,
                                        const Qcow2Options& options);

// The same, where the folder of `path` is reached by another way.
using FolderOpener =
    std::function<absl::StatusOr<std::unique_ptr<HostFolder>>()>;
std::unique_ptr<Target> MakeQcow2Target(const std::string& path,
                                        const Qcow2Options& options,
                                        FolderOpener open_folder);

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_TARGETS_QCOW2_TARGET_H_
