// SPDX-License-Identifier: Apache-2.0
#include "common/base/crc32c.h"

#include <string_view>
#include <vector>

#include "gtest/gtest.h"
#include "tests/testing/random.h"

namespace snapsync {
namespace {

uint32_t Of(std::string_view text) {
  return Crc32c(std::as_bytes(std::span(text)));
}

// The definition, bit by bit.
uint32_t BitByBit(std::span<const std::byte> data) {
  uint32_t crc = ~0U;
  for (const std::byte byte : data) {
    crc ^= static_cast<uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc & 1) != 0 ? (crc >> 1) ^ 0x82F63B78U : crc >> 1;
    }
  }
  return ~crc;
}

// RFC 3720, B.4, and the check value of the catalogue of CRCs.
TEST(Crc32c, KnownValuesComeOut) {
  EXPECT_EQ(Of("123456789"), 0xE3069283U);
  EXPECT_EQ(Of(""), 0U);
  EXPECT_EQ(Of(std::string(32, '\0')), 0x8A9136AAU);
  EXPECT_EQ(Of(std::string(32, '\xff')), 0x62A8AB43U);
}

TEST(Crc32c, AnyLengthAtAnyAlignmentIsAsByDefinition) {
  Random random(1);
  std::vector<std::byte> bytes(200);
  random.Fill(bytes);
  for (size_t start = 0; start < 9; ++start) {
    for (size_t length = 0; start + length <= bytes.size(); length += 7) {
      const auto part = std::span(bytes).subspan(start, length);
      ASSERT_EQ(Crc32c(part), BitByBit(part)) << start << " " << length;
    }
  }
}

}  // namespace
}  // namespace snapsync
