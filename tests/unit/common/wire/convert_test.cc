// SPDX-License-Identifier: Apache-2.0
#include "common/wire/convert.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/wire/limits.h"

namespace snapsync {
namespace {

SessionRequest SomeRequest() {
  SessionRequest request;
  request.volume = "replica";
  request.replication = "u";
  request.source = "nas1:/dev/vg/snap";
  request.base = Id128::Random();
  request.generation = Id128::Random();
  request.source_size = 1 << 30;
  request.plan_digest.fill(std::byte{7});
  request.chunk_count = 5;
  request.covers_all = true;
  request.image = {uint64_t{1} << 31, 1 << 20, "zstd", true, 7};
  return request;
}

TEST(ConvertTest, ASessionRequestArrivesAsItWas) {
  const SessionRequest sent = SomeRequest();
  const auto arrived = wire::FromProto(wire::ToProto(sent));
  ASSERT_TRUE(arrived.ok()) << arrived.status();
  EXPECT_EQ(arrived->volume, sent.volume);
  EXPECT_EQ(arrived->replication, sent.replication);
  EXPECT_EQ(arrived->source, sent.source);
  EXPECT_EQ(arrived->base, sent.base);
  EXPECT_EQ(arrived->generation, sent.generation);
  EXPECT_EQ(arrived->source_size, sent.source_size);
  EXPECT_EQ(arrived->plan_digest, sent.plan_digest);
  EXPECT_EQ(arrived->chunk_count, sent.chunk_count);
  EXPECT_TRUE(arrived->covers_all);
  EXPECT_FALSE(arrived->allow_overwrite);
  EXPECT_EQ(arrived->image, sent.image);
}

TEST(ConvertTest, NoBaseIsAnEmptyFieldAndComesBackAsNone) {
  SessionRequest request = SomeRequest();
  request.base = Id128{};
  const auto message = wire::ToProto(request);
  EXPECT_TRUE(message.base().empty());
  EXPECT_TRUE(wire::FromProto(message)->base.none());
}

TEST(ConvertTest, EachFieldOfARequestIsChecked) {
  const auto broken = [](auto change) {
    v1::OpenSessionRequest message = wire::ToProto(SomeRequest());
    change(message);
    return wire::FromProto(message).status();
  };
  EXPECT_FALSE(broken([](auto& m) { m.set_base("short"); }).ok());
  EXPECT_FALSE(broken([](auto& m) { m.set_generation("x"); }).ok());
  EXPECT_FALSE(broken([](auto& m) { m.set_plan_digest(""); }).ok());
  EXPECT_FALSE(broken([](auto& m) { m.set_replication(""); }).ok());
  EXPECT_FALSE(broken([](auto& m) { m.set_volume("a\nb"); }).ok());
  EXPECT_FALSE(broken([](auto& m) {
                 m.set_source(std::string(kMaxTextBytes + 1, 'x'));
               }).ok());
  EXPECT_FALSE(broken([](auto& m) { m.set_source_size(~0ULL); }).ok());
}

TEST(ConvertTest, ASenderOfAnotherProtocolIsToldWhichSideToUpdate) {
  v1::OpenSessionRequest message = wire::ToProto(SomeRequest());
  message.mutable_versions()->set_lowest(kHighestProtocol + 1);
  message.mutable_versions()->set_highest(kHighestProtocol + 3);
  const absl::Status status = wire::FromProto(message).status();
  EXPECT_NE(MessageOf(status).find("update the older one"),
            std::string_view::npos)
      << status;
}

TEST(ConvertTest, AChunkArrivesWithPiecesDataAndChecksum) {
  std::vector<std::byte> data(1024, std::byte{42});
  Chunk chunk;
  chunk.index = 9;
  chunk.pieces = {{0, 1024, PieceKind::kData},
                  {4096, 512, PieceKind::kZero},
                  {8192, 512, PieceKind::kGone}};
  chunk.data = data;
  chunk.checksum = ChecksumOf(chunk);
  v1::PushRequest message;
  wire::ToProto(chunk, message);
  const auto arrived = wire::FromProto(message);
  ASSERT_TRUE(arrived.ok()) << arrived.status();
  EXPECT_EQ(arrived->pieces, chunk.pieces);
  EXPECT_TRUE(CheckChunk(*arrived, 1 << 20).ok());
}

TEST(ConvertTest, AMessageOfTheLargestChunkIsWithinTheLimit) {
  std::vector<std::byte> data(kChunkDataBytes);
  Chunk chunk;
  chunk.index = ~0ULL;
  for (uint64_t i = 0; i < kChunkPieces; ++i) {
    chunk.pieces.push_back({(uint64_t{1} << 61) + i * 8192,
                            kChunkDataBytes / kChunkPieces, PieceKind::kData});
  }
  chunk.data = data;
  v1::PushRequest message;
  message.set_volume(std::string(kMaxTextBytes, 'v'));
  message.set_session(std::string(16, 's'));
  wire::ToProto(chunk, message);
  EXPECT_LE(message.ByteSizeLong(), static_cast<size_t>(kMaxMessageBytes));
}

TEST(ConvertTest, UnknownKindsAndTooManyPiecesAreRefused) {
  v1::PushRequest message;
  message.set_checksum(std::string(16, 'c'));
  message.add_pieces()->set_kind(static_cast<v1::PieceKind>(3));
  EXPECT_FALSE(wire::FromProto(message).ok());
  message.clear_pieces();
  for (size_t i = 0; i <= kChunkPieces; ++i) message.add_pieces();
  EXPECT_FALSE(wire::FromProto(message).ok());
}

TEST(ConvertTest, ARequestForHashesArrivesAsItWasAndIsChecked) {
  HashRequest sent;
  sent.volume = "replica";
  sent.replication = "u";
  sent.source = "nas1:/dev/sda";
  sent.source_size = 1 << 30;
  sent.allow_overwrite = true;
  sent.dry_run = true;
  const v1::HashBlocksRequest good = wire::ToProto(sent);
  const auto arrived = wire::FromProto(good);
  ASSERT_TRUE(arrived.ok()) << arrived.status();
  EXPECT_EQ(arrived->volume, sent.volume);
  EXPECT_EQ(arrived->replication, sent.replication);
  EXPECT_EQ(arrived->source, sent.source);
  EXPECT_EQ(arrived->source_size, sent.source_size);
  EXPECT_TRUE(arrived->allow_overwrite);
  EXPECT_TRUE(arrived->dry_run);
  const auto broken = [&good](auto change) {
    v1::HashBlocksRequest message = good;
    change(message);
    return wire::FromProto(message).status();
  };
  EXPECT_FALSE(broken([](auto& m) { m.set_replication(""); }).ok());
  EXPECT_FALSE(broken([](auto& m) { m.set_volume("a\nb"); }).ok());
  EXPECT_FALSE(broken([](auto& m) { m.set_source_size(~0ULL); }).ok());
  EXPECT_FALSE(broken([](auto& m) { m.set_source_size(513); }).ok());
  EXPECT_FALSE(broken([](auto& m) {
                 m.mutable_versions()->set_lowest(kHighestProtocol + 1);
               }).ok());
}

TEST(ConvertTest, HashesArriveAsTheyWereAndInBounds) {
  HashBatch sent;
  sent.generation = Id128::Random();
  sent.first_block = 1 << 20;
  sent.digests.resize(kHashBatchBlocks);
  sent.digests.back().fill(std::byte{7});
  v1::HashBlocksResponse message = wire::ToProto(sent);
  const auto arrived = wire::FromProto(message);
  ASSERT_TRUE(arrived.ok()) << arrived.status();
  EXPECT_EQ(arrived->generation, sent.generation);
  EXPECT_EQ(arrived->first_block, sent.first_block);
  EXPECT_EQ(arrived->digests, sent.digests);
  message.mutable_digests()->push_back('x');
  EXPECT_FALSE(wire::FromProto(message).ok());
  message.mutable_digests()->append(31, 'x');
  EXPECT_FALSE(wire::FromProto(message).ok());
  message.clear_digests();
  EXPECT_TRUE(wire::FromProto(message)->digests.empty());
  message.set_generation("short");
  EXPECT_FALSE(wire::FromProto(message).ok());
}

TEST(ConvertTest, ARequestForChangesArrivesAsItWasAndIsChecked) {
  ChangesRequest sent;
  sent.target.volume = "replica";
  sent.target.replication = "u";
  sent.target.source_size = 1 << 30;
  sent.candidates = {Id128::Random(), Id128::Random()};
  v1::ChangedSinceRequest message = wire::ToProto(sent);
  const auto arrived = wire::FromProto(message);
  ASSERT_TRUE(arrived.ok()) << arrived.status();
  EXPECT_EQ(arrived->target.volume, "replica");
  EXPECT_EQ(arrived->candidates, sent.candidates);
  message.add_candidates("short");
  EXPECT_FALSE(wire::FromProto(message).ok());
  message.mutable_candidates()->RemoveLast();
  while (static_cast<size_t>(message.candidates_size()) <=
         ChangesRequest::kMaxCandidates) {
    message.add_candidates(message.candidates(0));
  }
  EXPECT_FALSE(wire::FromProto(message).ok());
}

TEST(ConvertTest, ChangesArriveInPartsAsTheyWereAndInOrder) {
  Changes sent;
  sent.generation = Id128::Random();
  sent.common = Id128::Random();
  for (uint64_t i = 0; i < 10000; ++i) sent.extents.Append({i << 17, 1 << 16});
  Changes arrived;
  size_t told = 0;
  int parts = 0;
  v1::ChangedSinceResponse message;
  for (; told < sent.extents.extents().size(); ++parts) {
    message = wire::ToProto(sent, told);
    ASSERT_TRUE(wire::Append(message, arrived).ok());
    told += static_cast<size_t>(message.offsets_size());
  }
  EXPECT_GT(parts, 1);
  EXPECT_EQ(arrived.generation, sent.generation);
  EXPECT_EQ(arrived.common, sent.common);
  EXPECT_EQ(arrived.extents, sent.extents);
  // The same once more is out of order.
  EXPECT_FALSE(wire::Append(message, arrived).ok());
  Changes none;
  message.Clear();
  EXPECT_FALSE(wire::Append(message, none).ok());
  message = wire::ToProto(sent, 0);
  message.set_lengths(0, 513);
  EXPECT_FALSE(wire::Append(message, none).ok());
  message.set_lengths(0, ~0ULL);
  EXPECT_FALSE(wire::Append(message, none).ok());
  message.mutable_lengths()->RemoveLast();
  EXPECT_FALSE(wire::Append(message, none).ok());
}

TEST(ConvertTest, RandomBytesAsMessagesNeverCrash) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 20000; ++i) {
    std::string bytes(random() % 200, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    v1::PushRequest push;
    if (push.ParseFromString(bytes)) {
      const auto chunk = wire::FromProto(push);
      if (chunk.ok()) {
        EXPECT_FALSE(CheckChunk(*chunk, 1 << 20).ok());
      }
    }
    v1::OpenSessionRequest open;
    if (open.ParseFromString(bytes)) {
      EXPECT_FALSE(wire::FromProto(open).ok());
    }
    v1::HashBlocksRequest hash;
    if (hash.ParseFromString(bytes)) (void)wire::FromProto(hash);
    v1::HashBlocksResponse hashes;
    if (hashes.ParseFromString(bytes)) (void)wire::FromProto(hashes);
    v1::ChangedSinceRequest changes;
    if (changes.ParseFromString(bytes)) (void)wire::FromProto(changes);
    v1::ChangedSinceResponse changed;
    Changes found;
    if (changed.ParseFromString(bytes)) (void)wire::Append(changed, found);
    v1::Volume volume;
    if (volume.ParseFromString(bytes)) (void)wire::FromProto(volume);
  }
}

}  // namespace
}  // namespace snapsync
