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
  Hasher Open() {
    return {std::make_unique<MemoryReader>(device_), device_->bytes.size(),
            true};
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
