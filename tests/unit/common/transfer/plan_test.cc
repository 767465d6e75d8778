// SPDX-License-Identifier: Apache-2.0
#include "common/transfer/plan.h"

#include <algorithm>
#include <utility>

#include "common/base/units.h"
#include "gtest/gtest.h"
#include "tests/testing/random.h"

namespace snapsync {
namespace {

ExtentList List(std::initializer_list<Extent> extents) {
  ExtentList list;
  for (const Extent& extent : extents) list.Append(extent);
  return list;
}

std::vector<std::vector<Piece>> ChunksOf(const Plan& plan) {
  std::vector<std::vector<Piece>> chunks;
  Plan::Cursor cursor(plan);
  for (auto pieces = cursor.Next(); !pieces.empty(); pieces = cursor.Next()) {
    chunks.push_back(std::move(pieces));
  }
  return chunks;
}

struct Lists {
  ExtentList changed;
  ExtentList gone;
};

Lists RandomLists(Random& random) {
  Lists lists;
  uint64_t at = 0;
  for (uint64_t n = random.Below(600); n > 0; --n) {
    at += random.Below(3) * kSectorBytes;
    uint64_t length = random.Between(1, 8) * kSectorBytes;
    if (random.Percent(2)) length = random.Between(1, 5000) * kSectorBytes;
    if (random.Percent(50)) {
      lists.changed.Append({at, length});
    } else {
      if (random.Percent(5)) length = random.Between(1, 12) * kGiB;
      lists.gone.Append({at, length});
    }
    at += length;
  }
  return lists;
}

TEST(Plan, OfNothingIsEmpty) {
  const Plan plan(kGiB, {}, {});
  EXPECT_TRUE(plan.empty());
  EXPECT_EQ(plan.chunk_count(), 0U);
  EXPECT_TRUE(Plan::Cursor(plan).Next().empty());
  EXPECT_TRUE(plan.At(0).Next().empty());
  EXPECT_TRUE(plan.At(5).Next().empty());
}

TEST(Plan, TheEndIsTheEndHoweverOftenOneAsks) {
  const Plan plan(kGiB, List({{0, kSectorBytes}}), {});
  Plan::Cursor cursor(plan);
  EXPECT_FALSE(cursor.Next().empty());
  EXPECT_TRUE(cursor.Next().empty());
  EXPECT_TRUE(cursor.Next().empty());
}

TEST(Plan, DataIsCutAtOneMebibyte) {
  const Plan plan(kGiB, List({{kSectorBytes, 2 * kMiB + kSectorBytes}}), {});
  const std::vector<std::vector<Piece>> expected = {
      {{kSectorBytes, kMiB, PieceKind::kData}},
      {{kSectorBytes + kMiB, kMiB, PieceKind::kData}},
      {{kSectorBytes + 2 * kMiB, kSectorBytes, PieceKind::kData}}};
  EXPECT_EQ(ChunksOf(plan), expected);
  EXPECT_EQ(plan.chunk_count(), 3U);
}

TEST(Plan, APieceIsCutWhereTheMebibyteEnds) {
  const Plan plan(kGiB, List({{0, 512 * kKiB}, {kMiB, kMiB}}), {});
  const std::vector<std::vector<Piece>> expected = {
      {{0, 512 * kKiB, PieceKind::kData}, {kMiB, 512 * kKiB, PieceKind::kData}},
      {{kMiB + 512 * kKiB, 512 * kKiB, PieceKind::kData}}};
  EXPECT_EQ(ChunksOf(plan), expected);
}

TEST(Plan, ScatteredPiecesAreCutAtTwoHundredAndFiftySix) {
  ExtentList changed;
  for (uint64_t i = 0; i < 600; ++i) changed.Append({i * 1024, kSectorBytes});
  const auto chunks = ChunksOf(Plan(kGiB, changed, {}));
  ASSERT_EQ(chunks.size(), 3U);
  EXPECT_EQ(chunks[0].size(), 256U);
  EXPECT_EQ(chunks[1].size(), 256U);
  EXPECT_EQ(chunks[2].size(), 88U);
  EXPECT_EQ(chunks[1].front().offset, 256U * 1024);
}

TEST(Plan, WhatIsGoneIsCutAtFourGibibytes) {
  const Plan plan(100 * kGiB, {}, List({{kGiB, 9 * kGiB}}));
  const std::vector<std::vector<Piece>> expected = {
      {{kGiB, 4 * kGiB, PieceKind::kGone}},
      {{5 * kGiB, 4 * kGiB, PieceKind::kGone}},
      {{9 * kGiB, kGiB, PieceKind::kGone}}};
  EXPECT_EQ(ChunksOf(plan), expected);
}

TEST(Plan, DataAndGoneAreInOneAscendingOrder) {
  const Plan plan(
      kGiB, List({{0, kSectorBytes}, {2 * kSectorBytes, kSectorBytes}}),
      List({{kSectorBytes, kSectorBytes}, {3 * kSectorBytes, kSectorBytes}}));
  const std::vector<std::vector<Piece>> expected = {
      {{0, kSectorBytes, PieceKind::kData},
       {kSectorBytes, kSectorBytes, PieceKind::kGone},
       {2 * kSectorBytes, kSectorBytes, PieceKind::kData},
       {3 * kSectorBytes, kSectorBytes, PieceKind::kGone}}};
  EXPECT_EQ(ChunksOf(plan), expected);
}

TEST(Plan, ChunksAreAscendingWithinLimitsAndCoverExactlyTheLists) {
  Random random(1);
  for (int i = 0; i < 300; ++i) {
    const Lists lists = RandomLists(random);
    const Plan plan(1000 * kGiB, lists.changed, lists.gone);
    ExtentList data;
    ExtentList gone;
    const auto chunks = ChunksOf(plan);
    EXPECT_EQ(plan.chunk_count(), chunks.size());
    uint64_t at = 0;
    for (size_t c = 0; c < chunks.size(); ++c) {
      Chunk chunk;
      chunk.index = c;
      chunk.pieces = chunks[c];
      uint64_t data_bytes = 0;
      for (const Piece& piece : chunks[c]) {
        ASSERT_GE(piece.offset, at);
        at = piece.offset + piece.length;
        const bool is_data = piece.kind == PieceKind::kData;
        (is_data ? data : gone).Append({piece.offset, piece.length});
        if (is_data) data_bytes += piece.length;
      }
      // What the agent checks of it.
      const std::vector<std::byte> bytes(data_bytes);
      chunk.data = bytes;
      chunk.checksum = ChecksumOf(chunk);
      ASSERT_TRUE(CheckChunk(chunk, plan.source_size()).ok());
    }
    EXPECT_EQ(data, lists.changed);
    EXPECT_EQ(gone, lists.gone);
    EXPECT_EQ(plan.changed_bytes(), lists.changed.bytes());
    EXPECT_EQ(plan.gone_bytes(), lists.gone.bytes());
  }
}

TEST(Plan, TheSameListsGiveTheSameChunksAndAnyChunkIsFoundByItsNumber) {
  Random random(2);
  for (int i = 0; i < 50; ++i) {
    const Lists lists = RandomLists(random);
    const Plan plan(1000 * kGiB, lists.changed, lists.gone);
    const Plan again(1000 * kGiB, lists.changed, lists.gone);
    EXPECT_EQ(plan.digest(), again.digest());
    const auto chunks = ChunksOf(plan);
    for (size_t c = 0; c < chunks.size(); ++c) {
      ASSERT_EQ(again.At(c).Next(), chunks[c]);
    }
    EXPECT_TRUE(again.At(chunks.size()).Next().empty());
  }
}

TEST(Plan, DifferentPlansHaveDifferentDigests) {
  const Extent a{0, kSectorBytes};
  const Extent b{4096, kSectorBytes};
  const std::vector<Plan> plans = {
      Plan(kGiB, {}, {}),
      Plan(2 * kGiB, {}, {}),
      Plan(kGiB, List({a}), {}),
      Plan(kGiB, {}, List({a})),
      Plan(kGiB, List({a, b}), {}),
      Plan(kGiB, List({a}), List({b})),
      Plan(kGiB, List({b}), List({a})),
      Plan(kGiB, List({{0, 1024}}), {}),
  };
  for (size_t i = 0; i < plans.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      EXPECT_NE(plans[i].digest(), plans[j].digest()) << i << " " << j;
    }
  }
}

}  // namespace
}  // namespace snapsync
