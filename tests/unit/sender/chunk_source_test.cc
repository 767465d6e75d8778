// SPDX-License-Identifier: Apache-2.0
#include "sender/chunk_source.h"

#include <algorithm>
#include <cstring>

#include "gtest/gtest.h"
#include "tests/testing/memory_device.h"
#include "tests/testing/random.h"
#include "tests/testing/status_matchers.h"

namespace snapsync {
namespace {

using testing::ElementsAre;

constexpr uint64_t kSize = 16 * kMiB;

struct Copied {
  uint64_t index = 0;
  std::vector<Piece> pieces;
  std::vector<std::byte> data;
  Checksum128 checksum{};
  friend bool operator==(const Copied&, const Copied&) = default;
};

class ChunkSourceTest : public testing::TestWithParam<bool> {
 protected:
  std::unique_ptr<ChunkSource> Open(const Plan& plan, uint64_t first = 0) {
    return MakeChunkSource(&reader_, &plan, first, GetParam());
  }
  // All chunks; each was checked as the agent checks it.
  std::vector<Copied> All(const Plan& plan, uint64_t first = 0) {
    const auto source = Open(plan, first);
    std::vector<Copied> chunks;
    for (;;) {
      const absl::StatusOr<const Chunk*> chunk = source->Next();
      EXPECT_THAT(chunk, IsOk());
      if (!chunk.ok() || *chunk == nullptr) return chunks;
      EXPECT_THAT(CheckChunk(**chunk, kSize), IsOk());
      chunks.push_back({(*chunk)->index,
                        (*chunk)->pieces,
                        {(*chunk)->data.begin(), (*chunk)->data.end()},
                        (*chunk)->checksum});
    }
  }
  static Plan PlanOf(std::initializer_list<Extent> changed,
                     std::initializer_list<Extent> gone = {}) {
    ExtentList data;
    for (const Extent& extent : changed) data.Append(extent);
    ExtentList unmapped;
    for (const Extent& extent : gone) unmapped.Append(extent);
    return {kSize, data, unmapped};
  }
  void Fill(uint64_t offset, uint64_t length) {
    random_.Fill(std::span(device_->bytes).subspan(offset, length));
  }

  Random random_{1};
  std::shared_ptr<MemoryDevice> device_ = std::make_shared<MemoryDevice>(kSize);
  MemoryReader reader_{device_};
};

INSTANTIATE_TEST_SUITE_P(Reading, ChunkSourceTest, testing::Bool(),
                         [](const auto& ahead) {
                           return ahead.param ? "Ahead" : "Directly";
                         });

TEST_P(ChunkSourceTest, AReadErrorArrivesInsteadOfTheChunk) {
  Fill(0, kSize);
  int reads = 0;
  device_->before = [&reads](std::string_view) {
    return ++reads == 3 ? Error(Reason::kIo, "broken") : absl::OkStatus();
  };
  const Plan plan = PlanOf({{0, kSize}});
  const auto source = Open(plan);
  uint64_t chunks = 0;
  absl::StatusOr<const Chunk*> chunk = source->Next();
  for (; chunk.ok() && *chunk != nullptr; chunk = source->Next()) ++chunks;
  EXPECT_THAT(chunk, FailsWith(Reason::kIo, "broken"));
  EXPECT_EQ(chunks, 2 * ChunkSource::kBatchBytes / kChunkDataBytes);
}

TEST_P(ChunkSourceTest, ItCanBeGivenUpAtAnyChunk) {
  Fill(0, kSize);
  const Plan plan = PlanOf({{0, kSize}});
  for (uint64_t taken = 0; taken <= plan.chunk_count(); ++taken) {
    const auto source = Open(plan);
    for (uint64_t i = 0; i < taken; ++i) ASSERT_THAT(source->Next(), IsOk());
  }
}

TEST_P(ChunkSourceTest, AnEmptyPlanHasNoChunkHoweverOftenOneAsks) {
  const Plan plan = PlanOf({});
  const auto source = Open(plan);
  for (int i = 0; i < 3; ++i) {
    const auto chunk = source->Next();
    ASSERT_THAT(chunk, IsOk());
    EXPECT_EQ(*chunk, nullptr);
  }
}

TEST_P(ChunkSourceTest, DataArrivesAsItIs) {
  Fill(0, kSize);
  const Plan plan = PlanOf({{512, 3 * kMiB}, {8 * kMiB, 4096}});
  std::vector<std::byte> data;
  for (const Copied& chunk : All(plan)) {
    data.insert(data.end(), chunk.data.begin(), chunk.data.end());
  }
  std::vector<std::byte> expected(device_->bytes.begin() + 512,
                                  device_->bytes.begin() + 512 + 3 * kMiB);
  expected.insert(expected.end(), device_->bytes.begin() + 8 * kMiB,
                  device_->bytes.begin() + 8 * kMiB + 4096);
  EXPECT_EQ(data, expected);
}

TEST_P(ChunkSourceTest, ZeroGrainsAreToldNotSent) {
  Fill(kZeroGrainBytes, kZeroGrainBytes);
  const auto chunks = All(PlanOf({{0, 4 * kZeroGrainBytes}}));
  ASSERT_EQ(chunks.size(), 1U);
  EXPECT_THAT(
      chunks[0].pieces,
      ElementsAre(
          Piece{0, kZeroGrainBytes, PieceKind::kZero},
          Piece{kZeroGrainBytes, kZeroGrainBytes, PieceKind::kData},
          Piece{2 * kZeroGrainBytes, 2 * kZeroGrainBytes, PieceKind::kZero}));
  EXPECT_TRUE(std::equal(chunks[0].data.begin(), chunks[0].data.end(),
                         device_->bytes.begin() + kZeroGrainBytes));
}

// The grains lie at multiples of their size, wherever the extent begins.
TEST_P(ChunkSourceTest, AnExtentThatIsNotAlignedIsCutAtTheGrains) {
  Fill(kZeroGrainBytes, 512);
  const auto chunks =
      All(PlanOf({{kZeroGrainBytes - 1024, kZeroGrainBytes + 2048}}));
  ASSERT_EQ(chunks.size(), 1U);
  EXPECT_THAT(
      chunks[0].pieces,
      ElementsAre(Piece{kZeroGrainBytes - 1024, 1024, PieceKind::kZero},
                  Piece{kZeroGrainBytes, kZeroGrainBytes, PieceKind::kData},
                  Piece{2 * kZeroGrainBytes, 1024, PieceKind::kZero}));
}

TEST_P(ChunkSourceTest, OneByteKeepsItsGrain) {
  device_->bytes[2 * kZeroGrainBytes - 1] = std::byte{1};
  const auto chunks = All(PlanOf({{kZeroGrainBytes, kZeroGrainBytes}}));
  ASSERT_EQ(chunks.size(), 1U);
  EXPECT_EQ(chunks[0].data.size(), kZeroGrainBytes);
}

TEST_P(ChunkSourceTest, WhatIsGoneIsNotReadAndStaysApartFromZeroes) {
  const auto chunks =
      All(PlanOf({{kMiB, kZeroGrainBytes}}, {{kMiB + kZeroGrainBytes, kMiB}}));
  ASSERT_EQ(chunks.size(), 1U);
  EXPECT_THAT(
      chunks[0].pieces,
      ElementsAre(Piece{kMiB, kZeroGrainBytes, PieceKind::kZero},
                  Piece{kMiB + kZeroGrainBytes, kMiB, PieceKind::kGone}));
  device_->operations.clear();
  All(PlanOf({}, {{0, kSize}}));
  EXPECT_TRUE(device_->operations.empty());
}

// Zeroes are only told where a chunk has room for more pieces.
TEST_P(ChunkSourceTest, TheLimitOfPiecesIsKeptHoweverZeroesLie) {
  for (int round = 0; round < 20; ++round) {
    std::fill(device_->bytes.begin(), device_->bytes.end(), std::byte{0});
    ExtentList changed;
    ExtentList gone;
    uint64_t at = random_.Below(4) * 512;
    const uint64_t longest = random_.Percent(50) ? 4 : 600;
    while (at < kSize / 2) {
      const uint64_t length = random_.Between(1, longest) * 512;
      (random_.Percent(60) ? changed : gone).Append({at, length});
      if (random_.Percent(50)) Fill(at, 512);
      at += length + random_.Below(3) * 512;
    }
    const Plan plan(kSize, changed, gone);
    std::vector<std::byte> target(kSize, std::byte{0xEE});
    // All() checks each chunk, the number of pieces among the rest.
    for (const Copied& chunk : All(plan)) {
      const std::byte* data = chunk.data.data();
      for (const Piece& piece : chunk.pieces) {
        if (piece.kind == PieceKind::kData) {
          std::memcpy(target.data() + piece.offset, data, piece.length);
          data += piece.length;
        } else {
          std::memset(target.data() + piece.offset, 0, piece.length);
        }
      }
    }
    std::vector<std::byte> expected(kSize, std::byte{0xEE});
    for (const Extent& extent : changed.extents()) {
      std::memcpy(expected.data() + extent.offset,
                  device_->bytes.data() + extent.offset, extent.length);
    }
    for (const Extent& extent : gone.extents()) {
      std::memset(expected.data() + extent.offset, 0, extent.length);
    }
    ASSERT_EQ(target, expected);
  }
}

TEST_P(ChunkSourceTest, StartingAnywhereGivesTheSameChunksFromThereOn) {
  Fill(kMiB, 6 * kMiB);
  const Plan plan = PlanOf({{0, 9 * kMiB + 512}, {10 * kMiB, 5 * kMiB}});
  const std::vector<Copied> all = All(plan);
  ASSERT_EQ(all.size(), plan.chunk_count());
  for (uint64_t first = 0; first <= all.size(); ++first) {
    const std::vector<Copied> rest = All(plan, first);
    ASSERT_EQ(rest.size(), all.size() - first);
    EXPECT_TRUE(std::equal(rest.begin(), rest.end(),
                           all.begin() + static_cast<ptrdiff_t>(first)));
  }
}

TEST(ChunkSource, ReadingAheadGivesTheSameAsReadingDirectly) {
  Random random(1);
  const auto device = std::make_shared<MemoryDevice>(kSize);
  random.Fill(std::span(device->bytes).first(kSize / 2));
  MemoryReader reader(device);
  ExtentList changed;
  changed.Append({0, kSize});
  const Plan plan(kSize, changed, {});
  const auto direct = MakeChunkSource(&reader, &plan, 0, false);
  const auto ahead = MakeChunkSource(&reader, &plan, 0, true);
  for (;;) {
    const auto one = direct->Next();
    const auto other = ahead->Next();
    ASSERT_THAT(one, IsOk());
    ASSERT_THAT(other, IsOk());
    ASSERT_EQ(*one == nullptr, *other == nullptr);
    if (*one == nullptr) break;
    EXPECT_EQ((*one)->checksum, (*other)->checksum);
    EXPECT_TRUE(std::ranges::equal((*one)->data, (*other)->data));
  }
}

}  // namespace
}  // namespace snapsync
