// SPDX-License-Identifier: Apache-2.0
#include "sender/hash_delta.h"

#include <algorithm>

#include "common/transfer/block_hashes.h"
#include "gtest/gtest.h"
#include "tests/testing/random.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/sender/comparing_agent.h"

namespace snapsync {
namespace {

constexpr uint64_t kBlock = kHashBlockBytes;
constexpr uint64_t kSize = 9 * kMiB + 3 * 512;

class HashDeltaTest : public testing::Test {
 protected:
  HashDeltaTest() {
    agent_.generation = random_.Id();
    request_.source_size = kSize;
    mapped_.Append({0, kSize});
    random_.Fill(source_->bytes);
    agent_.device->bytes = source_->bytes;
  }
  absl::StatusOr<HashDelta> Compare() {
    return CompareByHash(agent_, request_, reader_, mapped_, true,
                         [this] { return interrupted_; });
  }
  static ExtentList ListOf(std::initializer_list<Extent> extents) {
    ExtentList list;
    for (const Extent& extent : extents) list.Append(extent);
    return list;
  }

  Random random_{1};
  std::shared_ptr<MemoryDevice> source_ = std::make_shared<MemoryDevice>(kSize);
  MemoryReader reader_{source_};
  ComparingAgent agent_{kSize};
  HashRequest request_;
  ExtentList mapped_;
  bool interrupted_ = false;
};

TEST_F(HashDeltaTest, EqualVolumesDifferNowhere) {
  const auto delta = Compare();
  ASSERT_THAT(delta, IsOk());
  EXPECT_TRUE(delta->changed.empty());
  EXPECT_TRUE(delta->gone.empty());
  EXPECT_EQ(delta->base, agent_.generation);
}

TEST_F(HashDeltaTest, NeighboursAreJoinedAndTheLastBlockIsClipped) {
  for (const uint64_t at : {4 * kBlock, 6 * kBlock - 1, kSize - 1}) {
    source_->bytes[at] ^= std::byte{1};
  }
  const auto delta = Compare();
  ASSERT_THAT(delta, IsOk());
  const uint64_t last = kSize / kBlock * kBlock;
  EXPECT_EQ(delta->changed,
            ListOf({{4 * kBlock, 2 * kBlock}, {last, kSize - last}}));
}

TEST_F(HashDeltaTest, WhatIsNotMappedIsGoneUnlessItIsZeroThere) {
  mapped_ = ListOf({{8 * kBlock, kSize - 8 * kBlock}});
  std::fill_n(agent_.device->bytes.begin() + 2 * kBlock, kBlock, std::byte{0});
  const auto delta = Compare();
  ASSERT_THAT(delta, IsOk());
  EXPECT_TRUE(delta->changed.empty());
  EXPECT_EQ(delta->gone, ListOf({{0, 2 * kBlock}, {3 * kBlock, 5 * kBlock}}));
}

TEST_F(HashDeltaTest, ATargetThatEndsEarlierIsZeroFromThere) {
  agent_.device->bytes.resize(5 * kBlock + 512);
  const auto delta = Compare();
  ASSERT_THAT(delta, IsOk());
  EXPECT_EQ(delta->changed, ListOf({{5 * kBlock, kSize - 5 * kBlock}}));
}

TEST_F(HashDeltaTest, ItIsWhatComparingBytesGives) {
  for (int turn = 0; turn < 20; ++turn) {
    agent_.device->bytes = source_->bytes;
    mapped_ = ExtentList();
    for (uint64_t at = 0; at < kSize; at += kBlock) {
      const uint64_t length = std::min(kBlock, kSize - at);
      const auto block = std::span(source_->bytes).subspan(at, length);
      const auto there = std::span(agent_.device->bytes).subspan(at, length);
      if (random_.Percent(60)) {
        mapped_.Append({at, length});
      } else {
        std::fill(block.begin(), block.end(), std::byte{0});
      }
      if (random_.Percent(20)) there[random_.Below(length)] ^= std::byte{128};
      if (random_.Percent(20)) {
        std::fill(there.begin(), there.end(), std::byte{0});
      }
    }
    ExtentList changed;
    ExtentList gone;
    for (uint64_t at = 0; at < kSize; at += kBlock) {
      const Extent extent{at, std::min(kBlock, kSize - at)};
      const auto begin = static_cast<ptrdiff_t>(at);
      const auto end = static_cast<ptrdiff_t>(extent.end());
      if (std::equal(source_->bytes.begin() + begin,
                     source_->bytes.begin() + end,
                     agent_.device->bytes.begin() + begin)) {
        continue;
      }
      const bool mapped = Difference(ListOf({extent}), mapped_).empty();
      (mapped ? changed : gone).Append(extent);
    }
    const auto delta = Compare();
    ASSERT_THAT(delta, IsOk());
    EXPECT_EQ(delta->changed, changed);
    EXPECT_EQ(delta->gone, gone);
  }
}

TEST_F(HashDeltaTest, AnAnswerWithBlocksLeftOutIsRefused) {
  agent_.left_out = 1;
  EXPECT_THAT(Compare(), FailsWith(Reason::kOther, "144 hashes of 145"));
}

TEST_F(HashDeltaTest, AnAnswerOutOfOrderOrTooLongIsRefused) {
  agent_.first_block = 1;
  EXPECT_THAT(Compare(), FailsWith(Reason::kOther, "from block 1 on"));
  EXPECT_THAT(
      CompareByHash(agent_, request_, reader_, mapped_, false,
                    [] { return false; }),
      FailsWith(Reason::kOther, "expected were those from block 0 on, of 145"));
}

TEST_F(HashDeltaTest, ErrorsOfBothSidesAreTold) {
  source_->before = [](std::string_view) {
    return Error(Reason::kIo, "unreadable");
  };
  EXPECT_THAT(Compare(), FailsWith(Reason::kIo, "unreadable"));
  agent_.refusal = Error(Reason::kBaseMismatch, "somebody wrote");
  EXPECT_THAT(Compare(), FailsWith(Reason::kBaseMismatch, "somebody wrote"));
}

TEST_F(HashDeltaTest, AnInterruptEndsIt) {
  interrupted_ = true;
  EXPECT_THAT(Compare(), FailsWith(Reason::kConnection, "interrupted"));
}

}  // namespace
}  // namespace snapsync
