// SPDX-License-Identifier: Apache-2.0
//
// Thin metadata in memory, as a MetadataReader, and what a test needs to damage
// it in a way that the checksum does not tell.
#ifndef SNAPSYNC_TESTS_UNIT_COMMON_THIN_MEMORY_METADATA_H_
#define SNAPSYNC_TESTS_UNIT_COMMON_THIN_MEMORY_METADATA_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/base/crc32c.h"
#include "common/base/endian.h"
#include "common/base/error.h"
#include "common/thin/format.h"
#include "common/thin/metadata_device.h"

namespace snapsync {

class MemoryMetadata final : public MetadataReader {
 public:
  explicit MemoryMetadata(std::vector<std::byte> image)
      : image_(std::move(image)) {}

  const std::string& name() const override { return name_; }
  uint64_t block_count() const override {
    return image_.size() / kMetadataBlockSize;
  }
  absl::Status Read(std::span<const uint64_t> blocks,
                    std::span<std::byte> out) override {
    for (size_t index = 0; index < blocks.size(); ++index) {
      if (blocks[index] >= block_count()) {
        return Error(Reason::kIo, "memory: a block beyond the end");
      }
      read_.insert(blocks[index]);
      std::memcpy(&out[index * kMetadataBlockSize], block(blocks[index]),
                  kMetadataBlockSize);
    }
    return absl::OkStatus();
  }

  std::byte* block(uint64_t number) {
    return &image_[number * kMetadataBlockSize];
  }
  std::vector<std::byte>& image() { return image_; }
  // The blocks that were read.
  const std::set<uint64_t>& read() const { return read_; }

  // Makes the block's checksum right for what it holds now.
  void Seal(uint64_t number, uint32_t salt) {
    const std::span<const std::byte> bytes(block(number), kMetadataBlockSize);
    StoreLittle<uint32_t>(block(number),
                          ~Crc32c(bytes.subspan(kChecksumFrom)) ^ salt);
  }
  template <typename T>
  void Set(uint64_t number, size_t at, T value, uint32_t salt) {
    StoreLittle<T>(block(number) + at, value);
    Seal(number, salt);
  }

 private:
  const std::string name_ = "memory";
  std::vector<std::byte> image_;
  std::set<uint64_t> read_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_TESTS_UNIT_COMMON_THIN_MEMORY_METADATA_H_
