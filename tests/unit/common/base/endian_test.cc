// SPDX-License-Identifier: Apache-2.0
#include "common/base/endian.h"

#include <array>

#include "gtest/gtest.h"

namespace snapsync {
namespace {

TEST(Endian, IntegersAreLittleEndianAtAnyAlignment) {
  std::array<std::byte, 12> bytes{};
  StoreLittle(bytes.data() + 1, uint64_t{0x0807060504030201});
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(bytes[1 + i], static_cast<std::byte>(i + 1));
  }
  EXPECT_EQ(bytes[0], std::byte{0});
  EXPECT_EQ(bytes[9], std::byte{0});
  EXPECT_EQ(LoadLittle<uint64_t>(bytes.data() + 1), 0x0807060504030201U);
  EXPECT_EQ(LoadLittle<uint32_t>(bytes.data() + 3), 0x06050403U);
  EXPECT_EQ(LoadLittle<uint16_t>(bytes.data() + 8), 0x0008U);
}

}  // namespace
}  // namespace snapsync
