// SPDX-License-Identifier: Apache-2.0
#include "common/block/zeroes.h"

#include <vector>

#include "gtest/gtest.h"

namespace snapsync {
namespace {

TEST(IsZero, OneBitAnywhereIsFound) {
  for (const size_t size : {1U, 2U, 7U, 512U, 4097U}) {
    std::vector<std::byte> bytes(size);
    EXPECT_TRUE(IsZero(bytes));
    for (size_t i = 0; i < size; ++i) {
      bytes[i] = std::byte{0x80};
      ASSERT_FALSE(IsZero(bytes)) << i << " of " << size;
      bytes[i] = std::byte{0};
    }
  }
}

TEST(IsZero, EqualBytesThatAreNotZeroAreFound) {
  EXPECT_FALSE(IsZero(std::vector<std::byte>(512, std::byte{0xFF})));
}

TEST(IsZero, NothingIsZero) { EXPECT_TRUE(IsZero({})); }

}  // namespace
}  // namespace snapsync
