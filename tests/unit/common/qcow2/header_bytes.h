// SPDX-License-Identifier: Apache-2.0
//
// The first bytes of a sound QCOW2 file, to be changed field by field: version
// 3, 64 KiB clusters, a disk of 1 GiB, refcount table, L1 table and so on in
// the clusters after the header. Used by one thread at a time.
#ifndef SNAPSYNC_TESTS_UNIT_COMMON_QCOW2_HEADER_BYTES_H_
#define SNAPSYNC_TESTS_UNIT_COMMON_QCOW2_HEADER_BYTES_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "common/qcow2/format.h"

namespace snapsync::qcow2 {

class HeaderBytes {
 public:
  static constexpr uint64_t kCluster = 65536;
  static constexpr uint64_t kFileBytes = 8 * kCluster;

  HeaderBytes() : bytes_(kFileBytes) {
    Set<uint32_t>(kMagicAt, kMagic);
    Set<uint32_t>(kVersionAt, 3);
    Set<uint32_t>(kClusterBitsAt, 16);
    Set<uint64_t>(kSizeAt, uint64_t{1} << 30);
    Set<uint32_t>(kL1SizeAt, 2);
    Set<uint64_t>(kL1OffsetAt, 3 * kCluster);
    Set<uint64_t>(kRefcountTableOffsetAt, kCluster);
    Set<uint32_t>(kRefcountTableClustersAt, 1);
    Set<uint32_t>(kRefcountOrderAt, 4);
    Set<uint32_t>(kHeaderLengthAt, kHeaderBytes);
  }

  template <typename T>
  HeaderBytes& Set(size_t at, T value) {
    StoreBig(bytes_.data() + at, value);
    return *this;
  }
  HeaderBytes& SetText(size_t at, std::string_view text) {
    std::memcpy(bytes_.data() + at, text.data(), text.size());
    return *this;
  }
  // Adds an extension after those that are there.
  HeaderBytes& Extend(uint32_t type, std::span<const std::byte> data) {
    return Extend(type, data, static_cast<uint32_t>(data.size()));
  }
  HeaderBytes& Extend(uint32_t type, std::string_view text) {
    return Extend(type, std::as_bytes(std::span(text)));
  }
  // The same, with a length that need not be that of the data.
  HeaderBytes& Extend(uint32_t type, std::span<const std::byte> data,
                      uint32_t length) {
    Set(next_extension_, type);
    Set(next_extension_ + 4, length);
    if (!data.empty()) {
      std::memcpy(bytes_.data() + next_extension_ + 8, data.data(),
                  data.size());
    }
    next_extension_ += 8 + (data.size() + 7) / 8 * 8;
    return *this;
  }
  // Cuts or lengthens the file.
  HeaderBytes& Resize(size_t size) {
    bytes_.resize(size);
    return *this;
  }

  std::vector<std::byte>& bytes() { return bytes_; }
  // Where the next extension will be.
  size_t next_extension() const { return next_extension_; }

 private:
  std::vector<std::byte> bytes_;
  size_t next_extension_ = kHeaderBytes;
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_TESTS_UNIT_COMMON_QCOW2_HEADER_BYTES_H_
