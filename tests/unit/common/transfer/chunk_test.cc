// SPDX-License-Identifier: Apache-2.0
#include "common/transfer/chunk.h"

#include <vector>

#include "gtest/gtest.h"
#include "tests/testing/random.h"
#include "tests/testing/status_matchers.h"

namespace snapsync {
namespace {

constexpr uint64_t kVolume = 64 * kGiB;

// A chunk that is right unless the test changes it, and its data.
class ChunkTest : public testing::Test {
 protected:
  void SetData(uint64_t length) {
    data_.assign(length, std::byte{0x5A});
    chunk_.data = data_;
  }
  absl::Status Check(uint64_t volume = kVolume) {
    chunk_.checksum = ChecksumOf(chunk_);
    return CheckChunk(chunk_, volume);
  }

  std::vector<std::byte> data_;
  Chunk chunk_;
};

auto Refuses(const std::string& text) {
  return FailsWith(Reason::kOther, text);
}

TEST_F(ChunkTest, NoPieceAndTooManyPiecesAreRefused) {
  EXPECT_THAT(Check(), Refuses("0 pieces"));
  for (size_t i = 0; i < kChunkPieces; ++i) {
    chunk_.pieces.push_back({i * 1024, 512, PieceKind::kGone});
  }
  EXPECT_THAT(Check(), IsOk());
  chunk_.pieces.push_back({kGiB, 512, PieceKind::kGone});
  EXPECT_THAT(Check(), Refuses("257 pieces"));
}

TEST_F(ChunkTest, AnEmptyPieceIsRefused) {
  chunk_.pieces = {{0, 0, PieceKind::kGone}};
  EXPECT_THAT(Check(), Refuses("0 bytes at offset 0"));
}

TEST_F(ChunkTest, PiecesOutOfOrderOrOverlappingAreRefused) {
  chunk_.pieces = {{4096, 512, PieceKind::kGone}, {0, 512, PieceKind::kGone}};
  EXPECT_THAT(Check(), Refuses("out of order"));
  chunk_.pieces = {{0, 1024, PieceKind::kGone}, {512, 512, PieceKind::kZero}};
  EXPECT_THAT(Check(), Refuses("out of order"));
  chunk_.pieces = {{0, 1024, PieceKind::kGone}, {1024, 512, PieceKind::kZero}};
  EXPECT_THAT(Check(), IsOk());
}

TEST_F(ChunkTest, APieceBeyondTheVolumeIsRefused) {
  chunk_.pieces = {{4096, 1024, PieceKind::kGone}};
  EXPECT_THAT(Check(5120), IsOk());
  EXPECT_THAT(Check(4608), Refuses("beyond the volume of 4608 bytes"));
  chunk_.pieces = {{8192, 512, PieceKind::kGone}};
  EXPECT_THAT(Check(4608), Refuses("beyond the volume"));
}

TEST_F(ChunkTest, AnEndThatOverflowsIsRefused) {
  chunk_.pieces = {{UINT64_MAX - 511, 1024, PieceKind::kGone}};
  EXPECT_THAT(Check(), Refuses("beyond the volume"));
  chunk_.pieces = {{512, UINT64_MAX - 511, PieceKind::kGone}};
  EXPECT_THAT(Check(), Refuses("beyond the volume"));
  chunk_.pieces = {{512, UINT64_MAX - 511, PieceKind::kGone}};
  EXPECT_THAT(Check(UINT64_MAX), Refuses("beyond the volume"));
}

TEST_F(ChunkTest, APartOfASectorIsRefused) {
  chunk_.pieces = {{100, 512, PieceKind::kGone}};
  EXPECT_THAT(Check(), Refuses("whole sectors"));
  chunk_.pieces = {{512, 100, PieceKind::kGone}};
  EXPECT_THAT(Check(), Refuses("whole sectors"));
}

TEST_F(ChunkTest, MoreDataThanAMebibyteIsRefused) {
  chunk_.pieces = {{0, kChunkDataBytes, PieceKind::kData}};
  SetData(kChunkDataBytes);
  EXPECT_THAT(Check(), IsOk());
  chunk_.pieces.push_back({2 * kMiB, 512, PieceKind::kData});
  SetData(kChunkDataBytes + 512);
  EXPECT_THAT(Check(), Refuses("larger than a chunk may be"));
}

TEST_F(ChunkTest, MoreZeroesThanMayBeInOneGoAreRefused) {
  chunk_.pieces = {{0, 2 * kChunkGoneBytes, PieceKind::kGone}};
  EXPECT_THAT(Check(), IsOk());
  chunk_.pieces.push_back({2 * kChunkGoneBytes, 512, PieceKind::kZero});
  EXPECT_THAT(Check(), Refuses("larger than a chunk may be"));
}

TEST_F(ChunkTest, DataThatThePiecesDoNotExplainIsRefused) {
  chunk_.pieces = {{0, 1024, PieceKind::kData}};
  SetData(512);
  EXPECT_THAT(Check(), Refuses("512 bytes of data, its pieces say 1024"));
  SetData(1536);
  EXPECT_THAT(Check(), Refuses("1536 bytes of data"));
  chunk_.pieces[0].kind = PieceKind::kZero;
  EXPECT_THAT(Check(), Refuses("its pieces say 0"));
}

TEST_F(ChunkTest, AnythingChangedAfterTheChecksumWasMadeIsFound) {
  chunk_.index = 7;
  chunk_.pieces = {{0, 1024, PieceKind::kData}, {4096, 512, PieceKind::kZero}};
  SetData(1024);
  ASSERT_THAT(Check(), IsOk());
  const Chunk good = chunk_;
  const auto found = FailsWith(Reason::kVerification, "checksum");
  chunk_.index = 8;
  EXPECT_THAT(CheckChunk(chunk_, kVolume), found);
  chunk_ = good;
  chunk_.pieces[1].offset = 8192;
  EXPECT_THAT(CheckChunk(chunk_, kVolume), found);
  chunk_ = good;
  chunk_.pieces[1].length = 1024;
  EXPECT_THAT(CheckChunk(chunk_, kVolume), found);
  chunk_ = good;
  chunk_.pieces[1].kind = PieceKind::kGone;
  EXPECT_THAT(CheckChunk(chunk_, kVolume), found);
  chunk_ = good;
  for (size_t i = 0; i < data_.size(); i += 37) {
    data_[i] ^= std::byte{4};
    EXPECT_THAT(CheckChunk(chunk_, kVolume), found) << i;
    data_[i] ^= std::byte{4};
  }
  chunk_.checksum[15] ^= std::byte{1};
  EXPECT_THAT(CheckChunk(chunk_, kVolume), found);
}

TEST_F(ChunkTest, RandomPiecesNeverCrash) {
  Random random(1);
  for (int i = 0; i < 20'000; ++i) {
    chunk_.pieces.clear();
    uint64_t data = 0;
    for (uint64_t n = random.Below(5); n > 0; --n) {
      Piece piece{random.Next() >> random.Below(64),
                  random.Next() >> random.Below(64),
                  static_cast<PieceKind>(random.Below(4))};
      if (random.Percent(70)) piece.offset = piece.offset / 512 * 512;
      if (random.Percent(70)) piece.length = piece.length / 512 * 512;
      if (piece.kind == PieceKind::kData) data += piece.length;
      chunk_.pieces.push_back(piece);
    }
    if (data > kMiB) data = random.Below(kMiB);
    SetData(data);
    const absl::Status status = Check();
    if (!status.ok()) {
      EXPECT_EQ(ReasonOf(status), Reason::kOther);
    }
  }
}

TEST(SessionDigest, DependsOnAllChecksumsAndTheirOrder) {
  const Checksum128 a{std::byte{1}};
  const Checksum128 b{std::byte{2}};
  const Digest256 none{};
  const auto extend = [](const Digest256& digest, const Checksum128& checksum) {
    return ExtendSessionDigest(digest, checksum);
  };
  EXPECT_NE(extend(none, a), none);
  EXPECT_NE(extend(none, a), extend(none, b));
  EXPECT_NE(extend(extend(none, a), b), extend(extend(none, b), a));
  EXPECT_NE(extend(extend(none, a), a), extend(none, a));
}

}  // namespace
}  // namespace snapsync
