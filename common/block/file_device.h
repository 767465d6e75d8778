// SPDX-License-Identifier: Apache-2.0
//
// Devices and regular files as BlockReader and BlockWriter: io_uring with many
// operations in flight, O_DIRECT where the file system can (a block device
// always). No page cache stands between a read and what is on the disk, but
// where that is asked for.
//
// Thread-safe after construction. The descriptor is owned.
#ifndef SNAPSYNC_COMMON_BLOCK_FILE_DEVICE_H_
#define SNAPSYNC_COMMON_BLOCK_FILE_DEVICE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/block/block_device.h"

namespace snapsync {

struct ReaderOptions {
  // What errors call it; empty: the path.
  std::string name = {};
  // What the page cache holds of a regular file is taken from there; nothing is
  // brought into it. For what is to be read, not for what is to be proven to be
  // on the disk.
  bool from_cache = false;
};

// Opens `path` for reading. kIo with the path when it can't be.
absl::StatusOr<std::unique_ptr<BlockReader>> OpenFileReader(
    const std::string& path, const ReaderOptions& options = {});

enum class ZeroMethod {
  // A thin device: whole blocks of the pool are discarded (they then read as
  // zeroes); what is left at the edges is written only if it is not zero.
  kThinDiscard,
  // Any other device or file: a hole where the kernel promises zeroes for it,
  // else written zeroes.
  kPunchHole,
};

struct WriterOptions {
  ZeroMethod zero_method = ZeroMethod::kPunchHole;
  uint64_t discard_block = 0;  // bytes; the thin pool's block, for kThinDiscard
  // O_EXCL: kBusy while a block device is mounted or held. A plain open by
  // somebody else is not noticed here: see device_holders.h.
  bool exclusive = false;
  // What errors call it; empty: the path.
  std::string name = {};
};

// Opens an existing `path` for writing.
absl::StatusOr<std::unique_ptr<BlockWriter>> OpenFileWriter(
    const std::string& path, const WriterOptions& options);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BLOCK_FILE_DEVICE_H_
