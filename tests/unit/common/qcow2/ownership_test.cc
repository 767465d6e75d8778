// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/ownership.h"

#include <set>

#include "common/base/units.h"
#include "gtest/gtest.h"
#include "tests/testing/random.h"

namespace snapsync::qcow2 {
namespace {

using Claim = Ownership::Claim;

TEST(Ownership, AClusterHasOneOwner) {
  Ownership ownership(16, kMiB);
  EXPECT_EQ(ownership.ClaimAlone({0, 65536}), Claim::kGranted);
  EXPECT_EQ(ownership.ClaimAlone({65536, 2 * 65536 + 1}), Claim::kGranted);
  EXPECT_EQ(ownership.ClaimAlone({0, 1}), Claim::kOwned);
  EXPECT_EQ(ownership.ClaimAlone({3 * 65536, 65536}), Claim::kOwned);
  EXPECT_EQ(ownership.ClaimAlone({4 * 65536, 65536}), Claim::kGranted);
  EXPECT_EQ(ownership.ClaimAlone({0, 0}), Claim::kGranted);
}

TEST(Ownership, StreamsShareClustersAmongThemselvesAlone) {
  Ownership ownership(16, kMiB);
  EXPECT_EQ(ownership.ClaimShared({100, 65536}), Claim::kGranted);
  EXPECT_EQ(ownership.ClaimShared({65000, 5000}), Claim::kGranted);
  EXPECT_EQ(ownership.ClaimAlone({65536, 65536}), Claim::kOwned);
  EXPECT_EQ(ownership.ClaimAlone({2 * 65536, 65536}), Claim::kGranted);
  EXPECT_EQ(ownership.ClaimShared({2 * 65536 - 1, 2}), Claim::kOwned);
}

TEST(Ownership, FarApartClustersCostBoundedMemory) {
  Ownership ownership(9, 64 * kKiB);
  Claim claim = Claim::kGranted;
  uint64_t granted = 0;
  while (claim == Claim::kGranted) {
    claim = ownership.ClaimAlone({granted << 40U, 512});
    if (claim == Claim::kGranted) ++granted;
  }
  EXPECT_EQ(claim, Claim::kTooManyClusters);
  EXPECT_EQ(granted, 16U);
}

TEST(Ownership, AgreesWithAPlainSet) {
  Random random(3);
  Ownership ownership(9, kMiB);
  std::set<uint64_t> owned;
  for (int round = 0; round < 20000; ++round) {
    const uint64_t cluster = random.Below(4) << 30U | random.Below(30000);
    const bool granted = owned.insert(cluster).second;
    ASSERT_EQ(ownership.ClaimAlone({cluster << 9U, 512}),
              granted ? Claim::kGranted : Claim::kOwned);
  }
}

// Adds the numbers pass after pass; how many passes there were.
int AddAll(DuplicateFinder& finder, const std::vector<uint64_t>& numbers) {
  int passes = 0;
  do {
    ++passes;
    for (const uint64_t number : numbers) finder.Add(number);
  } while (finder.NeedsAnotherPass());
  return passes;
}

TEST(DuplicateFinder, FindsADuplicateAnywhereInBoundedMemory) {
  Random random(5);
  for (int round = 0; round < 200; ++round) {
    std::set<uint64_t> distinct;
    while (distinct.size() < 1 + random.Below(300)) {
      distinct.insert(random.Percent(50) ? random.Below(400) : random.Next());
    }
    std::vector<uint64_t> numbers(distinct.begin(), distinct.end());
    for (size_t i = numbers.size(); i > 1; --i) {
      std::swap(numbers[i - 1], numbers[random.Below(i)]);
    }
    DuplicateFinder none(16);
    const int passes = AddAll(none, numbers);
    EXPECT_FALSE(none.found());
    EXPECT_EQ(passes > 1, numbers.size() >= 16) << numbers.size();

    numbers.insert(numbers.begin() + static_cast<std::ptrdiff_t>(
                                         random.Below(numbers.size() + 1)),
                   numbers[random.Below(numbers.size())]);
    DuplicateFinder one(16);
    AddAll(one, numbers);
    EXPECT_TRUE(one.found());
  }
}

TEST(DuplicateFinder, EndsWhenAllAreTheSame) {
  DuplicateFinder finder(4);
  AddAll(finder, std::vector<uint64_t>(100, 7));
  EXPECT_TRUE(finder.found());
}

}  // namespace
}  // namespace snapsync::qcow2
