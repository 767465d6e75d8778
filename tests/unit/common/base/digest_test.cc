// SPDX-License-Identifier: Apache-2.0
#include "common/base/digest.h"

#include <vector>

#include "gtest/gtest.h"

namespace snapsync {
namespace {

std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

// FIPS 180-2, appendix B.
TEST(Sha256, KnownValuesComeOut) {
  EXPECT_EQ(Hex(Sha256().Finish()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Hex(Sha256().Update("abc").Finish()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Sha256, TheCutsBetweenUpdatesDoNotMatter) {
  EXPECT_EQ(Sha256().Update("a").Update("").Update("bc").Finish(),
            Sha256().Update("abc").Finish());
}

TEST(Sha256, ANumberIsEightBytesLittleEndian) {
  EXPECT_EQ(
      Sha256().Update(uint64_t{0x0102}).Finish(),
      Sha256().Update(std::string_view("\x02\x01\0\0\0\0\0\0", 8)).Finish());
}

TEST(Sha256, AMovedOneGoesOn) {
  Sha256 first;
  first.Update("ab");
  Sha256 second = std::move(first);
  EXPECT_EQ(second.Update("c").Finish(), Sha256().Update("abc").Finish());
}

// The values are those of the command xxh128sum.
TEST(Xxh3, KnownValuesComeOut) {
  EXPECT_EQ(Hex(Xxh3().Finish()), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(Hex(Xxh3().Update(Bytes("abc")).Finish()),
            "06b05ab6733a618578af5f94892f3950");
}

TEST(Xxh3, TheCutsBetweenUpdatesDoNotMatter) {
  std::vector<std::byte> bytes(5000, std::byte{42});
  const auto all = std::span<const std::byte>(bytes);
  EXPECT_EQ(Xxh3().Update(all.first(1)).Update(all.subspan(1)).Finish(),
            Xxh3().Update(all).Finish());
}

TEST(Hex, BytesComeBack) {
  const std::vector<std::byte> bytes = {std::byte{0}, std::byte{0xff},
                                        std::byte{0x1a}};
  EXPECT_EQ(Hex(bytes), "00ff1a");
  std::vector<std::byte> back(3);
  ASSERT_TRUE(FromHex("00ff1a", back));
  EXPECT_EQ(back, bytes);
}

TEST(Hex, AnythingButExactlyTheDigitsIsRefused) {
  std::vector<std::byte> out(2);
  EXPECT_FALSE(FromHex("", out));
  EXPECT_FALSE(FromHex("0102a", out));
  EXPECT_FALSE(FromHex("01020", out));
  EXPECT_FALSE(FromHex("010203", out));
  EXPECT_FALSE(FromHex("01g2", out));
  EXPECT_FALSE(FromHex("01 2", out));
  EXPECT_FALSE(FromHex("01AB", out));
  EXPECT_TRUE(FromHex("01ab", out));
}

}  // namespace
}  // namespace snapsync
