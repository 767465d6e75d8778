// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/cluster_set.h"

#include <set>

#include "gtest/gtest.h"
#include "tests/testing/random.h"

namespace snapsync::qcow2 {
namespace {

using Runs = std::map<uint64_t, uint64_t>;

TEST(ClusterSet, JoinsWhatTouches) {
  ClusterSet set;
  set.Add(10, 5);
  set.Add(20, 5);
  set.Add(15, 5);
  EXPECT_EQ(set.runs(), (Runs{{10, 25}}));
  EXPECT_EQ(set.size(), 15U);
  set.Remove(12, 2);
  EXPECT_EQ(set.runs(), (Runs{{10, 12}, {14, 25}}));
}

TEST(ClusterSet, TakesTheLowestRunThatIsLongEnough) {
  ClusterSet set;
  set.Add(1, 2);
  set.Add(10, 3);
  set.Add(20, 9);
  EXPECT_EQ(set.Take(3), 10U);
  EXPECT_EQ(set.Take(3), 20U);
  EXPECT_EQ(set.Take(1), 1U);
  EXPECT_EQ(set.Take(7), std::nullopt);
  EXPECT_EQ(set.runs(), (Runs{{2, 3}, {23, 29}}));
}

TEST(ClusterSet, HoldsWhatASetHolds) {
  Random random(7);
  ClusterSet set;
  std::set<uint64_t> expected;
  for (int step = 0; step < 2000; ++step) {
    const uint64_t first = random.Below(100);
    const uint64_t count = random.Below(20);
    const bool add = random.Percent(55);
    if (add) {
      set.Add(first, count);
    } else {
      set.Remove(first, count);
    }
    for (uint64_t i = first; i < first + count; ++i) {
      if (add) {
        expected.insert(i);
      } else {
        expected.erase(i);
      }
    }
    ASSERT_EQ(set.size(), expected.size()) << step;
    for (uint64_t i = 0; i < 130; ++i) {
      ASSERT_EQ(set.Contains(i), expected.contains(i)) << step << ", " << i;
    }
    uint64_t end_before = 0;
    for (const auto& [run_first, run_end] : set.runs()) {
      ASSERT_LT(run_first, run_end);
      ASSERT_TRUE(end_before == 0 || end_before < run_first) << step;
      end_before = run_end;
    }
  }
}

}  // namespace
}  // namespace snapsync::qcow2
