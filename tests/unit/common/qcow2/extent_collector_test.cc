// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/extent_collector.h"

#include "gtest/gtest.h"

namespace snapsync::qcow2 {
namespace {

TEST(ExtentCollector, KeepsAFewExtentsAsTheyAre) {
  ExtentCollector collector(4);
  ExtentList expected;
  for (const Extent extent :
       {Extent{0, 512}, Extent{512, 512}, Extent{4096, 512}, Extent{9000, 0},
        Extent{1 << 20, 512}}) {
    collector.Append(extent);
    expected.Append(extent);
  }
  EXPECT_EQ(std::move(collector).Finish(), expected);
}

TEST(ExtentCollector, JoinsTheSmallestGapsOfManyAndLosesNothing) {
  ExtentCollector collector(100);
  ExtentList all;
  uint64_t at = 0;
  for (uint64_t index = 0; index < 100000; ++index) {
    const Extent extent{at, 512};
    collector.Append(extent);
    all.Append(extent);
    at += index % 1000 == 999 ? uint64_t{1} << 30U : 1024 + index % 7 * 512;
  }
  const ExtentList joined = std::move(collector).Finish();
  EXPECT_LE(joined.extents().size(), 100U);
  // The large gaps stay.
  EXPECT_EQ(joined.extents().size(), 100U);
  EXPECT_TRUE(Difference(all, joined).empty());
}

TEST(ExtentCollector, EndsWhenEveryGapIsLarge) {
  ExtentCollector collector(2);
  for (uint64_t index = 0; index < 50; ++index) {
    collector.Append({index << 50U, uint64_t{1} << 49U});
  }
  const ExtentList joined = std::move(collector).Finish();
  EXPECT_LE(joined.extents().size(), 2U);
  EXPECT_EQ(joined.extents().front().offset, 0U);
  EXPECT_EQ(joined.extents().back().end(),
            (uint64_t{49} << 50U) + (uint64_t{1} << 49U));
}

}  // namespace
}  // namespace snapsync::qcow2
