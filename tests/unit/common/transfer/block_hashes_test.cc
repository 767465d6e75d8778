// SPDX-License-Identifier: Apache-2.0
#include "common/transfer/block_hashes.h"

#include <algorithm>
#include <cstring>

#include "common/base/error.h"
#include "gtest/gtest.h"
#include "tests/testing/memory_device.h"
#include "tests/testing/random.h"
#include "tests/testing/status_matchers.h"

namespace snapsync {
namespace {

constexpr uint64_t kBlock = kHashBlockBytes;

// A device of which some extents can't be read.
class GuardedReader final : public BlockReader {
 public:
  explicit GuardedReader(uint64_t size)
      : device_(std::make_shared<MemoryDevice>(size)), reader_(device_) {}

  std::vector<std::byte>& bytes() { return device_->bytes; }
  const std::string& name() const override { return reader_.name(); }
  uint64_t size() const override { return reader_.size(); }
  absl::Status Read(std::span<const ReadOperation> operations) override {
    for (const ReadOperation& read : operations) {
      largest = std::max<uint64_t>(largest, read.data.size());
      for (const Extent& extent : forbidden.extents()) {
        if (read.offset < extent.end() &&
            extent.offset < read.offset + read.data.size()) {
          return Error(Reason::kIo, "a read of what is not mapped");
        }
      }
    }
    most_at_once = std::max(most_at_once, operations.size());
    return reader_.Read(operations);
  }

  ExtentList forbidden;
  uint64_t largest = 0;
  size_t most_at_once = 0;

 private:
  const std::shared_ptr<MemoryDevice> device_;
  MemoryReader reader_;
};

class BlockHashesTest : public testing::TestWithParam<bool> {
 protected:
  absl::StatusOr<std::vector<HashedBlock>> Hash(GuardedReader& reader,
                                                uint64_t size,
                                                const ExtentList& mapped) {
    BlockHasher hasher(&reader, size, mapped, GetParam());
    std::vector<HashedBlock> blocks;
    for (;;) {
      const auto next = hasher.Next();
      if (!next.ok()) return next.status();
      if (next->empty()) return blocks;
      blocks.insert(blocks.end(), next->begin(), next->end());
    }
  }
  static ExtentList All(uint64_t size) {
    ExtentList all;
    all.Append({0, size});
    return all;
  }
  static Digest256 DigestOf(std::span<const std::byte> bytes) {
    return Sha256().Update(bytes).Finish();
  }

  Random random_{1};
};

INSTANTIATE_TEST_SUITE_P(Threads, BlockHashesTest, testing::Bool(),
                         [](const auto& read_ahead) {
                           return read_ahead.param ? "ReadAhead" : "Direct";
                         });

TEST_P(BlockHashesTest, EachBlockIsHashedTheLastOneClippedToTheSize) {
  GuardedReader reader(12 * kMiB);
  random_.Fill(reader.bytes());
  std::fill_n(reader.bytes().begin() + 3 * kBlock, kBlock, std::byte{0});
  const uint64_t size = 11 * kMiB + kBlock + 512;
  const auto blocks = Hash(reader, size, All(size));
  ASSERT_THAT(blocks, IsOk());
  ASSERT_EQ(blocks->size(), HashBlockCount(size));
  for (uint64_t i = 0; i < blocks->size(); ++i) {
    const uint64_t length = std::min(kBlock, size - i * kBlock);
    EXPECT_TRUE((*blocks)[i].mapped);
    EXPECT_EQ((*blocks)[i].digest,
              DigestOf(std::span(reader.bytes()).subspan(i * kBlock, length)))
        << i;
  }
  EXPECT_EQ(reader.largest, BlockHasher::kReadBytes);
  EXPECT_EQ(reader.most_at_once,
            BlockHasher::kBatchBytes / BlockHasher::kReadBytes);
}

TEST_P(BlockHashesTest, WhatIsNotMappedIsZeroAndNeverRead) {
  const uint64_t size = 40 * kMiB + 512;
  GuardedReader reader(size);
  ExtentList mapped;
  mapped.Append({2 * kBlock, 3 * kBlock});
  mapped.Append({39 * kMiB, kBlock});
  reader.forbidden = mapped.ComplementIn(size);
  random_.Fill(std::span(reader.bytes()).first(kMiB));
  random_.Fill(std::span(reader.bytes()).subspan(39 * kMiB, kMiB));
  const auto blocks = Hash(reader, size, mapped);
  ASSERT_THAT(blocks, IsOk());
  ASSERT_EQ(blocks->size(), HashBlockCount(size));
  const std::vector<std::byte> zeroes(kBlock);
  for (uint64_t i = 0; i < blocks->size(); ++i) {
    const HashedBlock& block = (*blocks)[i];
    const uint64_t length = std::min(kBlock, size - i * kBlock);
    EXPECT_EQ(block.mapped, (i >= 2 && i < 5) || i == 39 * kMiB / kBlock);
    EXPECT_EQ(block.digest,
              DigestOf(block.mapped
                           ? std::span<const std::byte>(reader.bytes())
                                 .subspan(i * kBlock, length)
                           : std::span<const std::byte>(zeroes).first(length)))
        << i;
  }
}

TEST_P(BlockHashesTest, BeyondTheEndOfTheDeviceAreZeroes) {
  GuardedReader reader(kBlock + 1024);
  random_.Fill(reader.bytes());
  const auto blocks = Hash(reader, 4 * kBlock, All(4 * kBlock));
  ASSERT_THAT(blocks, IsOk());
  ASSERT_EQ(blocks->size(), 4U);
  std::vector<std::byte> bytes = reader.bytes();
  bytes.resize(4 * kBlock);
  for (uint64_t i = 0; i < 4; ++i) {
    EXPECT_EQ((*blocks)[i].digest,
              DigestOf(std::span(bytes).subspan(i * kBlock, kBlock)))
        << i;
  }
}

TEST_P(BlockHashesTest, ABlockInWhichTheDeviceEndsWithinASectorEqualsNothing) {
  GuardedReader reader(kBlock + 700);
  const auto blocks = Hash(reader, 3 * kBlock, All(3 * kBlock));
  ASSERT_THAT(blocks, IsOk());
  const std::vector<std::byte> zeroes(kBlock);
  EXPECT_EQ((*blocks)[0].digest, DigestOf(zeroes));
  EXPECT_EQ((*blocks)[1].digest, Digest256{});
  EXPECT_EQ((*blocks)[2].digest, DigestOf(zeroes));
}

TEST_P(BlockHashesTest, AnUnreadableDeviceIsAnError) {
  GuardedReader reader(kMiB);
  reader.forbidden = All(512);
  EXPECT_THAT(Hash(reader, kMiB, All(kMiB)), FailsWith(Reason::kIo, "a read"));
}

TEST_P(BlockHashesTest, AnEmptyVolumeHasNoBlocks) {
  GuardedReader reader(512);
  const auto blocks = Hash(reader, 0, ExtentList());
  ASSERT_THAT(blocks, IsOk());
  EXPECT_TRUE(blocks->empty());
}

}  // namespace
}  // namespace snapsync
