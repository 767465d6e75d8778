// SPDX-License-Identifier: Apache-2.0
#include "common/block/extent.h"

#include <initializer_list>
#include <vector>

#include "gtest/gtest.h"
#include "tests/testing/random.h"

namespace snapsync {
namespace {

constexpr uint64_t kBits = 64;

// A set of bytes, without any thought: the truth to compare with.
using Bitmap = std::vector<bool>;

ExtentList ToList(const Bitmap& bits) {
  ExtentList list;
  for (uint64_t i = 0; i < bits.size(); ++i) {
    if (bits[i]) list.Append({i, 1});
  }
  return list;
}

Bitmap RandomBitmap(Random& random) {
  Bitmap bits(kBits);
  bool on = random.Percent(50);
  const double change = random.Percent(50) ? 10 : 50;
  for (uint64_t i = 0; i < kBits; ++i) {
    if (random.Percent(change)) on = !on;
    bits[i] = on;
  }
  return bits;
}

void ExpectWellFormed(const ExtentList& list) {
  uint64_t end = 0;
  uint64_t bytes = 0;
  bool first = true;
  for (const Extent& extent : list.extents()) {
    EXPECT_GT(extent.length, 0U);
    EXPECT_TRUE(first || extent.offset > end);
    first = false;
    end = extent.end();
    bytes += extent.length;
  }
  EXPECT_EQ(list.bytes(), bytes);
  EXPECT_EQ(list.empty(), list.extents().empty());
}

TEST(ExtentList, EmptyExtentsAreIgnoredAndTouchingOnesJoined) {
  ExtentList list;
  list.Append({0, 0});
  EXPECT_TRUE(list.empty());
  list.Append({10, 5});
  list.Append({15, 0});
  list.Append({15, 5});
  list.Append({30, 1});
  EXPECT_EQ(list.extents(), (std::vector<Extent>{{10, 10}, {30, 1}}));
  EXPECT_EQ(list.bytes(), 11U);
}

TEST(ExtentListDeathTest, AnExtentBeforeTheEndOfTheLastOneIsAMistake) {
  ExtentList list;
  list.Append({10, 5});
#ifndef NDEBUG
  EXPECT_DEATH(list.Append({14, 5}), "offset");
#endif
}

TEST(ExtentList, TheAlgebraIsThatOfBitmaps) {
  Random random(1);
  for (int round = 0; round < 3000; ++round) {
    const Bitmap a = RandomBitmap(random);
    const Bitmap b = RandomBitmap(random);
    const uint64_t size = random.Below(kBits + 10);
    Bitmap both(kBits);
    Bitmap rest(kBits);
    Bitmap clipped(kBits);
    Bitmap complement(size);
    for (uint64_t i = 0; i < kBits; ++i) {
      both[i] = a[i] || b[i];
      rest[i] = a[i] && !b[i];
      clipped[i] = a[i] && i < size;
    }
    for (uint64_t i = 0; i < size; ++i) complement[i] = i >= kBits || !a[i];
    const ExtentList list = ToList(a);
    for (const auto& [result, truth] :
         {std::pair(Union(list, ToList(b)), both),
          std::pair(Difference(list, ToList(b)), rest),
          std::pair(list.ClippedTo(size), clipped),
          std::pair(list.ComplementIn(size), complement)}) {
      ASSERT_EQ(result, ToList(truth));
      ExpectWellFormed(result);
    }
  }
}

TEST(ExtentList, OffsetsNearTheEndOfTheNumbersDoNotOverflow) {
  ExtentList list;
  list.Append({UINT64_MAX - 10, 10});
  EXPECT_EQ(list.ComplementIn(UINT64_MAX).extents(),
            (std::vector<Extent>{{0, UINT64_MAX - 10}}));
  EXPECT_EQ(list.ClippedTo(UINT64_MAX - 5).bytes(), 5U);
  ExtentList all;
  all.Append({0, UINT64_MAX});
  EXPECT_EQ(Difference(all, list).bytes(), UINT64_MAX - 10);
  EXPECT_EQ(Union(all, list), all);
}

TEST(ExtentListTest, BlocksThatAreTouchedCountOnceEach) {
  ExtentList list;
  EXPECT_EQ(list.BytesInBlocks(8), 0u);
  list.Append({7, 2});    // blocks 0 and 1
  list.Append({10, 1});   // block 1 again
  list.Append({16, 8});   // block 2, and no more
  list.Append({39, 10});  // blocks 4, 5, 6
  EXPECT_EQ(list.BytesInBlocks(8), 6u * 8);
  EXPECT_EQ(list.BytesInBlocks(64), 64u);
}

}  // namespace
}  // namespace snapsync
