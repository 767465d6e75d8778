// SPDX-License-Identifier: Apache-2.0
//
// The ports through which everything reads and writes devices and files: one
// implementation for the real ones (file_device.h), one for the simulation.
// Offsets and lengths in bytes. Errors name the device and the offset.
#ifndef SNAPSYNC_COMMON_BLOCK_BLOCK_DEVICE_H_
#define SNAPSYNC_COMMON_BLOCK_BLOCK_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "common/block/extent.h"

namespace snapsync {

struct ReadOperation {
  uint64_t offset = 0;
  std::span<std::byte> data;  // AlignedBuffer memory; the caller keeps it
};

struct WriteOperation {
  uint64_t offset = 0;
  // AlignedBuffer memory, or any where the writer copies(); the caller keeps
  // it.
  std::span<const std::byte> data;
};

// Thread-safe.
class BlockReader {
 public:
  virtual ~BlockReader() = default;

  virtual const std::string& name() const = 0;
  virtual uint64_t size() const = 0;
  // Fills all of `operations`, together in flight as far as the device takes
  // them. On an error the contents of the buffers are unspecified. Offsets and
  // lengths are multiples of 512, and lie within the size.
  virtual absl::Status Read(std::span<const ReadOperation> operations) = 0;
};

// Thread-safe: operations of one call are unordered among themselves and
// against those of calls made at the same time.
//
// What is written is durable only after a Flush() that began after the write
// returned has itself returned OK. After a failed Write, Zero or Flush nothing
// may be concluded of anything written since the last good Flush, and trying
// again on the same writer proves nothing: the caller gives the writer up.
class BlockWriter {
 public:
  virtual ~BlockWriter() = default;

  virtual const std::string& name() const = 0;
  virtual uint64_t size() const = 0;
  // Offsets and lengths are multiples of 512, and lie within the size.
  virtual absl::Status Write(std::span<const WriteOperation> operations) = 0;
  // Makes `extent` read as zeroes: by a discard or hole where that is certain
  // to read as zeroes, else by writing them. Never grows a thin target.
  virtual absl::Status Zero(Extent extent) = 0;
  virtual absl::Status Flush() = 0;
  // What is there by now, as BlockReader::Read(): after a Flush() from the
  // device, past every cache in between.
  virtual absl::Status ReadBack(std::span<const ReadOperation> operations) = 0;
  // Write() copies what it is given and returns before that is written: small
  // writes cost no more than large ones.
  virtual bool copies() const { return false; }
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BLOCK_BLOCK_DEVICE_H_
