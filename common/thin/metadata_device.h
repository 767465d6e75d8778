// SPDX-License-Identifier: Apache-2.0
//
// Reading the blocks of thin metadata: the port, and the implementation for
// devices and files. The kernel writes metadata around the page cache, so a
// block device is read with O_DIRECT and never otherwise; a file too, where its
// file system can.
#ifndef SNAPSYNC_COMMON_THIN_METADATA_DEVICE_H_
#define SNAPSYNC_COMMON_THIN_METADATA_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace snapsync {

// Thread-compatible: one thread at a time.
class MetadataReader {
 public:
  virtual ~MetadataReader() = default;

  virtual const std::string& name() const = 0;
  // Whole metadata blocks on the device.
  virtual uint64_t block_count() const = 0;
  // Reads block blocks[i] to out[i * kMetadataBlockSize]. Requires: `blocks`
  // ascending (equal ones may follow each other), `out` page-aligned and of
  // their size. kIo when one of them is beyond the end or can't be read.
  virtual absl::Status Read(std::span<const uint64_t> blocks,
                            std::span<std::byte> out) = 0;
};

// Opens a block device or a regular file. kIo with the path when it can't be.
absl::StatusOr<std::unique_ptr<MetadataReader>> OpenMetadata(
    const std::string& path);

// Damage in metadata: kIo, with the device, the block, the field, what it holds
// and what it should.
absl::Status DamagedMetadata(std::string_view device, uint64_t block,
                             std::string_view field, std::string_view found,
                             std::string_view expected);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_THIN_METADATA_DEVICE_H_
