// SPDX-License-Identifier: Apache-2.0
#include "agent/session.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

#include "gtest/gtest.h"
#include "tests/testing/memory_device.h"
#include "tests/testing/random.h"
#include "tests/testing/status_matchers.h"

namespace snapsync {
namespace {

using testing::ElementsAre;

constexpr uint64_t kSize = 16 * kMiB;
constexpr uint64_t kChunks = 10;
constexpr uint64_t kChunkStep = 4096;  // chunk i writes at i × kChunkStep

class SessionTest : public testing::Test {
 protected:
  SessionTest() {
    std::fill(stage_->bytes.begin(), stage_->bytes.end(), std::byte{0xEE});
    Open();
  }

  // A session at the journal's watermark.
  void Open(uint64_t chunk_count = kChunks) {
    auto journal =
        Journal::Open(std::make_unique<MemoryReader>(journal_),
                      std::make_unique<MemoryWriter>(journal_), session_id_);
    ASSERT_THAT(journal, IsOk());
    Session::Options options;
    options.source_size = kSize;
    options.chunk_count = chunk_count;
    options.verify = verify_;
    options.threads = threads_;
    options.patience = patience_;
    session_ = std::make_unique<Session>(std::make_unique<MemoryWriter>(stage_),
                                         *std::move(journal), nullptr, options);
    journal_->operations.clear();
  }

  // Fills the field `data_`: the last one made is the one that can be used.
  Chunk Make(uint64_t index, std::vector<Piece> pieces) {
    Chunk chunk;
    chunk.index = index;
    chunk.pieces = std::move(pieces);
    uint64_t bytes = 0;
    for (const Piece& piece : chunk.pieces) {
      if (piece.kind == PieceKind::kData) bytes += piece.length;
    }
    data_.resize(bytes);
    random_.Fill(data_);
    chunk.data = data_;
    chunk.checksum = ChecksumOf(chunk);
    return chunk;
  }
  Chunk Make(uint64_t index) {
    return Make(index, {{index * kChunkStep, 512, PieceKind::kData}});
  }

  std::unique_ptr<Session::Segment> Start(uint64_t first) {
    auto segment = session_->StartSegment(first);
    EXPECT_THAT(segment, IsOk());
    return *std::move(segment);
  }
  absl::StatusOr<SegmentAck> Send(uint64_t first, uint64_t end) {
    const auto segment = Start(first);
    for (uint64_t i = first; i < end; ++i) {
      EXPECT_THAT(segment->Add(Make(i)), IsOk());
    }
    return segment->Finish();
  }
  // Until a segment has written, and waits for its turn, or will.
  void AwaitWrite() {
    while (true) {
      const std::lock_guard lock(stage_->mutex);
      if (stage_->Count("write") == 1) return;
    }
  }
  static auto Fails(std::string_view failing) {
    return [failing](std::string_view operation) {
      return operation == failing ? Error(Reason::kIo, "broken")
                                  : absl::OkStatus();
    };
  }

  Random random_{1};
  Id128 session_id_ = random_.Id();
  std::vector<std::byte> data_;
  std::shared_ptr<MemoryDevice> stage_ = std::make_shared<MemoryDevice>(kSize);
  std::shared_ptr<MemoryDevice> journal_ =
      std::make_shared<MemoryDevice>(Journal::kBytes);
  std::unique_ptr<Session> session_;
  bool verify_ = false;
  bool threads_ = false;
  std::chrono::seconds patience_{0};
};

TEST_F(SessionTest, ASegmentOutOfTurnIsRefused) {
  ASSERT_THAT(Send(0, 3), IsOk());
  EXPECT_THAT(session_->StartSegment(2),
              FailsWith(Reason::kConnection, "the watermark is 3 of 10"));
  EXPECT_THAT(session_->StartSegment(kChunks),
              FailsWith(Reason::kConnection, "out of turn"));
  const auto segment = Start(3);
  EXPECT_THAT(session_->StartSegment(3),
              FailsWith(Reason::kConnection, "out of turn"));
}

TEST_F(SessionTest, AChunkWithAnotherNumberIsRefused) {
  EXPECT_THAT(Start(0)->Add(Make(1)),
              FailsWith(Reason::kOther, "chunk 1 from the sender, expected 0"));
  Open(1);
  const auto last = Start(0);
  ASSERT_THAT(last->Add(Make(0)), IsOk());
  EXPECT_THAT(last->Add(Make(1)), FailsWith(Reason::kOther, "chunk 1"));
}

TEST_F(SessionTest, ASegmentEndsSomewhere) {
  Open(Session::kMaxSegmentChunks + 2);
  const auto segment = Start(0);
  for (uint64_t i = 0; i < Session::kMaxSegmentChunks; ++i) {
    ASSERT_THAT(segment->Add(Make(i, {{i * 512, 512, PieceKind::kGone}})),
                IsOk());
  }
  EXPECT_THAT(segment->Add(Make(Session::kMaxSegmentChunks)),
              FailsWith(Reason::kOther, "chunk 4096"));
}

TEST_F(SessionTest, ADamagedChunkIsRefusedAndNothingIsWritten) {
  const auto segment = Start(0);
  Chunk chunk = Make(0);
  data_[5] ^= std::byte{1};
  EXPECT_THAT(segment->Add(chunk), FailsWith(Reason::kVerification, "chunk 0"));
  EXPECT_TRUE(stage_->operations.empty());
}

TEST_F(SessionTest, AChunkBeyondTheVolumeIsRefused) {
  const auto segment = Start(0);
  EXPECT_THAT(segment->Add(Make(0, {{kSize, 512, PieceKind::kGone}})),
              FailsWith(Reason::kOther, "beyond the volume"));
}

TEST_F(SessionTest, DataAndZeroesArriveWhereTheyBelongAndNowhereElse) {
  const auto segment = Start(0);
  ASSERT_THAT(segment->Add(Make(0, {{0, 1024, PieceKind::kData},
                                    {4096, 512, PieceKind::kZero},
                                    {8192, 512, PieceKind::kData},
                                    {12288, 1024, PieceKind::kGone}})),
              IsOk());
  const std::vector<std::byte> sent = data_;
  ASSERT_THAT(segment->Finish(), IsOk());
  std::vector<std::byte> expected(kSize, std::byte{0xEE});
  std::copy_n(sent.begin(), 1024, expected.begin());
  std::fill_n(expected.begin() + 4096, 512, std::byte{0});
  std::copy_n(sent.begin() + 1024, 512, expected.begin() + 8192);
  std::fill_n(expected.begin() + 12288, 1024, std::byte{0});
  EXPECT_EQ(stage_->bytes, expected);
}

TEST_F(SessionTest, DataIsFlushedBeforeTheJournalSpeaksOfIt) {
  std::vector<std::string> order;
  stage_->before = [&order](std::string_view operation) {
    order.push_back("stage " + std::string(operation));
    return absl::OkStatus();
  };
  journal_->before = [&order](std::string_view operation) {
    order.push_back("journal " + std::string(operation));
    return absl::OkStatus();
  };
  const absl::StatusOr<SegmentAck> ack = Send(0, 2);
  ASSERT_THAT(ack, IsOk());
  EXPECT_EQ(ack->watermark, 2U);
  EXPECT_THAT(order, ElementsAre("stage write", "stage flush", "journal write",
                                 "journal flush"));
  EXPECT_EQ(session_->progress().watermark, 2U);
}

TEST_F(SessionTest, TheDigestIsOverAllChunksHoweverTheyAreCut) {
  Digest256 digest{};
  uint64_t end = 0;
  for (const uint64_t next : {1U, 2U, 5U, 10U}) {
    const auto segment = Start(end);
    for (; end < next; ++end) {
      const Chunk chunk = Make(end);
      digest = ExtendSessionDigest(digest, chunk.checksum);
      ASSERT_THAT(segment->Add(chunk), IsOk());
    }
    const auto ack = segment->Finish();
    ASSERT_THAT(ack, IsOk());
    EXPECT_EQ(ack->digest, digest);
  }
  EXPECT_THAT(session_->CheckComplete(kChunks, digest), IsOk());
}

TEST_F(SessionTest, AfterAFailureNothingMoreIsWrittenOrPromised) {
  for (const std::string_view failing : {"write", "flush"}) {
    Open();
    stage_->before = Fails(failing);
    EXPECT_THAT(Send(0, 2), FailsWith(Reason::kIo, "broken")) << failing;
    stage_->before = nullptr;
    EXPECT_TRUE(journal_->operations.empty());
    stage_->operations.clear();
    EXPECT_THAT(session_->StartSegment(0), FailsWith(Reason::kIo, "broken"));
    EXPECT_THAT(session_->status(), FailsWith(Reason::kIo, "broken"));
    EXPECT_THAT(session_->CheckComplete(kChunks, {}),
                FailsWith(Reason::kIo, "broken"));
    EXPECT_TRUE(stage_->operations.empty());
    EXPECT_EQ(session_->progress().watermark, 0U);
  }
}

TEST_F(SessionTest, AFailedZeroEndsTheSessionToo) {
  stage_->before = Fails("zero");
  const auto segment = Start(0);
  ASSERT_THAT(segment->Add(Make(0, {{0, 512, PieceKind::kGone}})), IsOk());
  EXPECT_THAT(segment->Finish(), FailsWith(Reason::kIo, "broken"));
  EXPECT_FALSE(session_->status().ok());
}

TEST_F(SessionTest, AFailedJournalIsNotAcknowledged) {
  journal_->before = Fails("flush");
  EXPECT_THAT(Send(0, 2), FailsWith(Reason::kIo, "broken"));
  EXPECT_EQ(session_->progress().watermark, 0U);
  EXPECT_FALSE(session_->status().ok());
}

TEST_F(SessionTest, ASessionGoesOnWhereTheJournalEnds) {
  ASSERT_THAT(Send(0, 4), IsOk());
  const SegmentAck before = session_->progress();
  Open();
  EXPECT_EQ(session_->progress().watermark, 4U);
  EXPECT_EQ(session_->progress().digest, before.digest);
  EXPECT_THAT(Send(4, kChunks), IsOk());
}

TEST_F(SessionTest, ASegmentThatIsGivenUpLeavesTheWatermark) {
  {
    const auto segment = Start(0);
    ASSERT_THAT(segment->Add(Make(0)), IsOk());
    EXPECT_TRUE(session_->active());
  }
  EXPECT_FALSE(session_->active());
  EXPECT_EQ(session_->progress().watermark, 0U);
  EXPECT_THAT(Send(0, 1), IsOk());
}

TEST_F(SessionTest, ASegmentBehindAGivenUpOneIsNotAcknowledged) {
  auto first = Start(0);
  const auto second = Start(2);
  ASSERT_THAT(second->Add(Make(2)), IsOk());
  first.reset();
  EXPECT_THAT(second->Finish(),
              FailsWith(Reason::kConnection, "did not arrive whole"));
  EXPECT_EQ(session_->progress().watermark, 0U);
  EXPECT_FALSE(session_->active());
}

TEST_F(SessionTest, ASegmentThatWasShorterThanPromisedStopsTheNext) {
  const auto first = Start(0);
  const auto second = Start(2);
  ASSERT_THAT(first->Add(Make(0)), IsOk());
  ASSERT_THAT(second->Add(Make(2)), IsOk());
  EXPECT_THAT(first->Finish(), IsOk());
  EXPECT_THAT(second->Finish(),
              FailsWith(Reason::kConnection, "did not arrive whole"));
  EXPECT_EQ(session_->progress().watermark, 1U);
}

TEST_F(SessionTest, SegmentsThatFinishInTheWrongOrderAreMadeDurableInTheRight) {
  const auto first = Start(0);
  const auto second = Start(2);
  ASSERT_THAT(second->Add(Make(2)), IsOk());
  absl::StatusOr<SegmentAck> second_ack = absl::UnknownError("");
  std::thread thread([&] { second_ack = second->Finish(); });
  AwaitWrite();
  ASSERT_THAT(first->Add(Make(0)), IsOk());
  ASSERT_THAT(first->Add(Make(1)), IsOk());
  const absl::StatusOr<SegmentAck> first_ack = first->Finish();
  thread.join();
  ASSERT_THAT(first_ack, IsOk());
  EXPECT_EQ(first_ack->watermark, 2U);
  ASSERT_THAT(second_ack, IsOk());
  EXPECT_EQ(second_ack->watermark, 3U);
}

TEST_F(SessionTest, ASegmentThatBeginsAfterTheNextOneIsWaitedFor) {
  patience_ = std::chrono::minutes(5);
  Open();
  const auto second = Start(2);
  ASSERT_THAT(second->Add(Make(2)), IsOk());
  absl::StatusOr<SegmentAck> second_ack = absl::UnknownError("");
  std::thread thread([&] { second_ack = second->Finish(); });
  AwaitWrite();
  const absl::StatusOr<SegmentAck> first_ack = Send(0, 2);
  thread.join();
  ASSERT_THAT(first_ack, IsOk());
  ASSERT_THAT(second_ack, IsOk());
  EXPECT_EQ(second_ack->watermark, 3U);
}

TEST_F(SessionTest, ASegmentBehindOneThatIsGivenUpMeanwhileDoesNotWait) {
  patience_ = std::chrono::minutes(5);
  Open();
  const auto second = Start(2);
  ASSERT_THAT(second->Add(Make(2)), IsOk());
  absl::StatusOr<SegmentAck> ack = absl::UnknownError("");
  std::thread thread([&] { ack = second->Finish(); });
  AwaitWrite();
  Start(0).reset();
  thread.join();
  EXPECT_THAT(ack, FailsWith(Reason::kConnection, "did not arrive whole"));
}

TEST_F(SessionTest, AFenceEndsASegmentThatWaitsForItsTurn) {
  const auto first = Start(0);
  const auto second = Start(2);
  ASSERT_THAT(second->Add(Make(2)), IsOk());
  absl::StatusOr<SegmentAck> ack = absl::UnknownError("");
  std::thread thread([&] { ack = second->Finish(); });
  session_->Fence(Error(Reason::kConnection, "superseded"));
  thread.join();
  EXPECT_THAT(ack, FailsWith(Reason::kConnection, "superseded"));
}

TEST_F(SessionTest, BehindAFenceNothingIsWrittenFlushedOrRecorded) {
  const auto segment = Start(0);
  ASSERT_THAT(segment->Add(Make(0)), IsOk());
  session_->Fence(Error(Reason::kConnection, "superseded"));
  EXPECT_THAT(segment->Finish(), FailsWith(Reason::kConnection, "superseded"));
  EXPECT_THAT(session_->StartSegment(0),
              FailsWith(Reason::kConnection, "superseded"));
  EXPECT_TRUE(stage_->operations.empty());
  EXPECT_TRUE(journal_->operations.empty());
}

TEST_F(SessionTest, MoreDataThanABatchIsWrittenOnTheWayUntilTheFence) {
  const auto segment = Start(0);
  const auto add = [&](uint64_t i) {
    return segment->Add(Make(i, {{i * kMiB, kMiB, PieceKind::kData}}));
  };
  for (uint64_t i = 0; i < 6; ++i) {
    ASSERT_THAT(add(i), IsOk());
    EXPECT_EQ(stage_->Count("write"), i / 2);
  }
  session_->Fence(Error(Reason::kConnection, "superseded"));
  EXPECT_THAT(add(6), FailsWith(Reason::kConnection, "superseded"));
  EXPECT_THAT(segment->Finish(), FailsWith(Reason::kConnection, "superseded"));
  EXPECT_EQ(stage_->Count("write"), 2U);
}

TEST_F(SessionTest, BatchesArriveWhole) {
  for (const bool threads : {false, true}) {
    threads_ = threads;
    session_id_ = random_.Id();
    Open();
    const auto segment = Start(0);
    std::vector<std::byte> sent;
    for (uint64_t i = 0; i < kChunks; ++i) {
      ASSERT_THAT(segment->Add(Make(i, {{i * kMiB, kMiB, PieceKind::kData}})),
                  IsOk());
      sent.insert(sent.end(), data_.begin(), data_.end());
    }
    ASSERT_THAT(segment->Finish(), IsOk());
    EXPECT_TRUE(std::equal(sent.begin(), sent.end(), stage_->bytes.begin()));
  }
}

TEST_F(SessionTest, AWriteThatFailsInAThreadIsToldByFinishAtTheLatest) {
  threads_ = true;
  Open();
  stage_->before = Fails("write");
  const auto segment = Start(0);
  for (uint64_t i = 0; i < kChunks; ++i) {
    if (!segment->Add(Make(i, {{i * kMiB, kMiB, PieceKind::kData}})).ok()) {
      break;
    }
  }
  EXPECT_THAT(segment->Finish(), FailsWith(Reason::kIo, "broken"));
  EXPECT_EQ(stage_->Count("flush"), 0U);
  EXPECT_EQ(session_->progress().watermark, 0U);
}

TEST_F(SessionTest, DataThatGoBackAreWrittenInTheirOrder) {
  threads_ = true;
  Open();
  const auto segment = Start(0);
  for (uint64_t i = 0; i < kChunks; ++i) {
    const uint64_t offset = i % 4 * kMiB / 2;
    ASSERT_THAT(segment->Add(Make(i, {{offset, kMiB, PieceKind::kData}})),
                IsOk());
  }
  const std::vector<std::byte> last = data_;  // of chunk 9, at 512 KiB
  ASSERT_THAT(segment->Finish(), IsOk());
  EXPECT_TRUE(
      std::equal(last.begin(), last.end(), stage_->bytes.begin() + kMiB / 2));
}

// No plan of ours does that, but a peer may.
TEST_F(SessionTest, ChunksThatGoBackAreWrittenInTheirOrder) {
  const auto segment = Start(0);
  ASSERT_THAT(segment->Add(Make(0, {{8192, 4096, PieceKind::kGone}})), IsOk());
  ASSERT_THAT(segment->Add(Make(1, {{0, 4096, PieceKind::kGone},
                                    {8192, 512, PieceKind::kGone}})),
              IsOk());
  ASSERT_THAT(segment->Add(Make(2, {{4096, 4096, PieceKind::kZero}})), IsOk());
  ASSERT_THAT(segment->Finish(), IsOk());
  EXPECT_TRUE(std::all_of(stage_->bytes.begin(), stage_->bytes.begin() + 12288,
                          [](std::byte b) { return b == std::byte{0}; }));
}

TEST_F(SessionTest, AnIncompleteSessionIsNotComplete) {
  ASSERT_THAT(Send(0, 4), IsOk());
  const Digest256 digest = session_->progress().digest;
  EXPECT_THAT(session_->CheckComplete(kChunks, digest),
              FailsWith(Reason::kVerification, "4 of 10 chunks"));
  EXPECT_THAT(session_->CheckComplete(4, digest),
              FailsWith(Reason::kVerification, "the sender says it sent 4"));
}

TEST_F(SessionTest, AnotherDigestIsNotComplete) {
  ASSERT_THAT(Send(0, kChunks), IsOk());
  Digest256 digest = session_->progress().digest;
  EXPECT_THAT(session_->CheckComplete(kChunks, digest), IsOk());
  digest[31] ^= std::byte{1};
  EXPECT_THAT(session_->CheckComplete(kChunks, digest),
              FailsWith(Reason::kVerification, "digest"));
}

TEST_F(SessionTest, WhatReadsBackAsSomethingElseDoesNotCount) {
  verify_ = true;
  const std::vector<Piece> pieces = {{512, 1024, PieceKind::kData},
                                     {4096, 8192, PieceKind::kZero},
                                     {16384, 512, PieceKind::kData},
                                     {32768, 512, PieceKind::kGone}};
  for (const size_t flipped : {512U, 1535U, 4096U, 12287U, 16384U, 33279U}) {
    Open(1);
    stage_->before = [&](std::string_view operation) {
      if (operation == "flush") stage_->bytes[flipped] ^= std::byte{1};
      return absl::OkStatus();
    };
    const auto segment = Start(0);
    ASSERT_THAT(segment->Add(Make(0, pieces)), IsOk());
    EXPECT_THAT(segment->Finish(), FailsWith(Reason::kVerification, "offset"));
    EXPECT_EQ(session_->progress().watermark, 0u);
    EXPECT_EQ(journal_->Count("write"), 0u);
  }
  Open(1);
  stage_->before = nullptr;
  const auto segment = Start(0);
  ASSERT_THAT(segment->Add(Make(0, pieces)), IsOk());
  ASSERT_THAT(segment->Finish(), IsOk());
  EXPECT_EQ(session_->progress().watermark, 1u);
}

TEST_F(SessionTest, ManyChunksReadBack) {
  verify_ = true;
  Open();
  ASSERT_THAT(Send(0, kChunks), IsOk());
  EXPECT_EQ(session_->progress().watermark, kChunks);
}

}  // namespace
}  // namespace snapsync
