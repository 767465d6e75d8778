// SPDX-License-Identifier: Apache-2.0
//
// Little-endian integers in raw bytes, at any alignment. The caller checks
// that `bytes` is long enough for the type.
#ifndef SNAPSYNC_COMMON_BASE_ENDIAN_H_
#define SNAPSYNC_COMMON_BASE_ENDIAN_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace snapsync {

static_assert(std::endian::native == std::endian::little,
              "big-endian hosts are not supported: dm-thin metadata, the "
              "journal and QCOW2 readers load integers as they are");

template <typename T>
T LoadLittle(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

template <typename T>
void StoreLittle(std::byte* bytes, T value) {
  std::memcpy(bytes, &value, sizeof value);
}

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BASE_ENDIAN_H_
