// SPDX-License-Identifier: Apache-2.0
#include "common/base/units.h"

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace snapsync {
namespace {

TEST(ParseSize, WhatIsNoSizeIsRefusedInItsOwnWords) {
  for (const char* text :
       {"", "K", "-1", "+1", "1.5G", "1 K", " 1", "1KB", "1KiB", "0x10",
        "18446744073709551616", "16777216T", "1P", "ten"}) {
    EXPECT_THAT(ParseSize(text),
                FailsWith(Reason::kUsage, "\"" + std::string(text) + "\""))
        << text;
  }
}

TEST(ParseSize, SuffixesArePowersOf1024) {
  EXPECT_EQ(*ParseSize("0"), 0U);
  EXPECT_EQ(*ParseSize("4096"), 4096U);
  EXPECT_EQ(*ParseSize("5B"), 5U);
  EXPECT_EQ(*ParseSize("64k"), 65536U);
  EXPECT_EQ(*ParseSize("64K"), 65536U);
  EXPECT_EQ(*ParseSize("10m"), 10 * kMiB);
  EXPECT_EQ(*ParseSize("1G"), kGiB);
  EXPECT_EQ(*ParseSize("2T"), 2048 * kGiB);
  EXPECT_EQ(*ParseSize("18446744073709551615"), UINT64_MAX);
}

TEST(FormatBytes, TheUnitFitsTheNumber) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(64 * kKiB), "64.0 KiB");
  EXPECT_EQ(FormatBytes(kGiB + kGiB / 2), "1.5 GiB");
  EXPECT_EQ(FormatBytes(UINT64_MAX), "16384.0 PiB");
}

TEST(FormatSeconds, TheUnitFitsTheNumber) {
  EXPECT_EQ(FormatSeconds(0.44), "0.4 s");
  EXPECT_EQ(FormatSeconds(200), "3 min 20 s");
  EXPECT_EQ(FormatSeconds(7500), "2 h 5 min");
}

TEST(FormatSeconds, NoUnitIsFull) {
  EXPECT_EQ(FormatSeconds(59.97), "1 min 0 s");
  EXPECT_EQ(FormatSeconds(3599.6), "1 h 0 min");
  EXPECT_EQ(FormatSeconds(7199), "1 h 59 min");
}

TEST(FormatBytes, NoUnitIsFull) {
  EXPECT_EQ(FormatBytes(kMiB - 1), "1.0 MiB");
  EXPECT_EQ(FormatBytes(kGiB - 1), "1.0 GiB");
}

}  // namespace
}  // namespace snapsync
