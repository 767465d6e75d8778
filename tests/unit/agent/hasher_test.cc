// SPDX-License-Identifier: Apache-2.0
#include "agent/hasher.h"

#include "gtest/gtest.h"
#include "tests/testing/memory_device.h"
#include "tests/testing/random.h"
#include "tests/testing/status_matchers.h"

namespace snapsync {
namespace {

class HasherTest : public testing::Test {
 protected:
  HasherTest() { Random(1).Fill(device_->bytes); }
  Hasher Open(uint64_t first_block = 0) {
    return {std::make_unique<MemoryReader>(device_), device_->bytes.size(),
            first_block, true};
  }
  const std::shared_ptr<MemoryDevice> device_ =
      std::make_shared<MemoryDevice>(9 * kMiB);
};

TEST_F(HasherTest, AllOfTheTargetIsHashed) {
  Hasher hasher = Open();
  std::vector<Digest256> all;
  for (;;) {
    const auto next = hasher.Next();
    ASSERT_THAT(next, IsOk());
    if (next->empty()) break;
    all.insert(all.end(), next->begin(), next->end());
  }
  ASSERT_EQ(all.size(), 9 * kMiB / kHashBlockBytes);
  EXPECT_EQ(
      all.back(),
      Sha256()
          .Update(
              std::span<const std::byte>(device_->bytes).last(kHashBlockBytes))
          .Finish());
}

TEST_F(HasherTest, ItBeginsWhereItIsTold) {
  const uint64_t count = 9 * kMiB / kHashBlockBytes;
  device_->bytes[(count - 1) * kHashBlockBytes] = std::byte{1};
  Hasher hasher = Open(count - 2);
  const auto next = hasher.Next();
  ASSERT_THAT(next, IsOk());
  ASSERT_EQ(next->size(), 2U);
  EXPECT_NE((*next)[0], (*next)[1]);
  Hasher at_end = Open(count);
  const auto nothing = at_end.Next();
  ASSERT_THAT(nothing, IsOk());
  EXPECT_TRUE(nothing->empty());
}

TEST_F(HasherTest, WhoIsFencedIsToldWhy) {
  Hasher hasher = Open();
  hasher.Fence(Error(Reason::kBusy, "taken over"));
  hasher.Fence();
  EXPECT_THAT(hasher.Next(), FailsWith(Reason::kBusy, "taken over"));
}

TEST_F(HasherTest, AFencedHasherHasLetTheTargetGo) {
  Hasher hasher = Open();
  EXPECT_THAT(hasher.Next(), IsOk());
  EXPECT_EQ(device_.use_count(), 2);
  hasher.Fence();
  EXPECT_EQ(device_.use_count(), 1);
  EXPECT_THAT(hasher.Next(), FailsWith(Reason::kConnection, "void"));
  hasher.Fence();
}

}  // namespace
}  // namespace snapsync
