// SPDX-License-Identifier: Apache-2.0
//
// Whether bytes are all zero: such blocks are never sent as data.
#ifndef SNAPSYNC_COMMON_BLOCK_ZEROES_H_
#define SNAPSYNC_COMMON_BLOCK_ZEROES_H_

#include <cstddef>
#include <cstring>
#include <span>

namespace snapsync {

// memcmp of the data with itself, shifted, is the fastest portable test: data
// that is not zero is left within the first bytes.
inline bool IsZero(std::span<const std::byte> data) {
  if (data.empty()) return true;
  return data[0] == std::byte{0} &&
         std::memcmp(data.data(), data.data() + 1, data.size() - 1) == 0;
}

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BLOCK_ZEROES_H_
