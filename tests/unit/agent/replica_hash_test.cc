// SPDX-License-Identifier: Apache-2.0
//
// What is hashed for a sender that compares, and what becomes a generation
// before it is.
#include "tests/unit/agent/replica_fixture.h"

namespace snapsync {
namespace {

class ReplicaHashTest : public ReplicaTest {
 protected:
  using ReplicaTest::ReplicaTest;

  static HashRequest Hash() {
    HashRequest request;
    request.volume = "vol";
    request.replication = "nightly";
    request.source = "nas1:/dev/vg/vol";
    request.source_size = kReplicaSize;
    return request;
  }
  static std::vector<Digest256> HashesOf(Hasher& hasher) {
    std::vector<Digest256> all;
    for (;;) {
      const auto next = hasher.Next();
      EXPECT_THAT(next, IsOk());
      if (!next.ok() || next->empty()) return all;
      all.insert(all.end(), next->begin(), next->end());
    }
  }
  std::vector<Digest256> HashesOfVolume() {
    std::vector<Digest256> all;
    for (uint64_t at = 0; at < kReplicaSize; at += kHashBlockBytes) {
      data_.assign(kHashBlockBytes, std::byte{0});
      volume_.visible()->seen().Read(pool_, at, data_);
      all.push_back(Sha256().Update(data_).Finish());
    }
    return all;
  }
};

class StagedReplicaHashTest : public ReplicaHashTest {
 protected:
  StagedReplicaHashTest() : ReplicaHashTest(false) {}
};

class InPlaceReplicaHashTest : public ReplicaHashTest {
 protected:
  InPlaceReplicaHashTest() : ReplicaHashTest(true) {}
};

INSTANTIATE_TEST_SUITE_P(Targets, ReplicaHashTest, testing::Bool(),
                         [](const auto& in_place) {
                           return in_place.param ? "InPlace" : "Staged";
                         });

TEST_P(ReplicaHashTest, AGenerationIsHashedAsItIsAndNothingIsWritten) {
  const SessionRequest first = FirstSync();
  const uint64_t changes = directory_.changes();
  const auto start = replica_->StartHash(Hash(), "alice");
  ASSERT_THAT(start, IsOk());
  EXPECT_EQ(start->generation, first.generation);
  EXPECT_EQ(HashesOf(*start->hasher), HashesOfVolume());
  EXPECT_EQ(directory_.changes(), changes);
  EXPECT_THAT(Sync(Request(start->generation)), IsOk());
}

TEST_P(ReplicaHashTest, WhatSomebodyWroteIsHashedOnlyWhenTheOperatorAgrees) {
  const SessionRequest first = FirstSync();
  WriteAsStranger();
  const uint64_t changes = directory_.changes();
  EXPECT_THAT(replica_->StartHash(Hash(), "alice"),
              FailsWith(Reason::kBaseMismatch, "somebody wrote"));
  EXPECT_EQ(directory_.changes(), changes);
  const SparseImage written = volume_.visible()->seen();
  HashRequest request = Hash();
  request.allow_overwrite = true;
  const auto start = replica_->StartHash(request, "alice");
  ASSERT_THAT(start, IsOk());
  EXPECT_NE(start->generation, first.generation);
  EXPECT_EQ(volume_.visible()->seen(), written);
  EXPECT_EQ(state(), TargetState::kAt);
  EXPECT_EQ(directory_.record().generation, start->generation);
  EXPECT_EQ(directory_.record().number, 2U);
  EXPECT_EQ(HashesOf(*start->hasher), HashesOfVolume());
  EXPECT_THAT(Sync(Request(start->generation)), IsOk());
}

TEST_P(ReplicaHashTest, AWriteAfterTheHashesIsFoundWhenTheSessionIsOpened) {
  volume_.visible()->WriteAsStranger(1000, Sector());
  HashRequest request = Hash();
  request.allow_overwrite = true;
  const auto start = replica_->StartHash(request, "alice");
  ASSERT_THAT(start, IsOk());
  WriteAsStranger();
  EXPECT_THAT(replica_->Open(Request(start->generation), "alice"),
              FailsWith(Reason::kBaseMismatch, "somebody wrote"));
}

TEST_P(ReplicaHashTest, WhatIsNoReplicaYetIsHashedOnlyWhenTheOperatorAgrees) {
  volume_.visible()->WriteAsStranger(1000, Sector());
  EXPECT_THAT(replica_->StartHash(Hash(), "alice"),
              FailsWith(Reason::kTargetUnsuitable, "--yes"));
  HashRequest request = Hash();
  request.allow_overwrite = true;
  const auto start = replica_->StartHash(request, "alice");
  ASSERT_THAT(start, IsOk());
  EXPECT_EQ(directory_.record().replication, "nightly");
  EXPECT_EQ(HashesOf(*start->hasher), HashesOfVolume());
  EXPECT_THAT(Sync(Request(start->generation)), IsOk());
}

TEST_P(ReplicaHashTest, AnotherReplicationsVolumeBecomesOursByConsent) {
  FirstSync();
  HashRequest request = Hash();
  request.replication = "weekly";
  EXPECT_THAT(replica_->StartHash(request, "alice"),
              FailsWith(Reason::kTargetUnsuitable, "\"nightly\""));
  request.allow_overwrite = true;
  const auto start = replica_->StartHash(request, "alice");
  ASSERT_THAT(start, IsOk());
  EXPECT_EQ(directory_.record().replication, "weekly");
  EXPECT_THAT(replica_->Open(Request(start->generation), "alice"),
              FailsWith(Reason::kTargetUnsuitable, "weekly"));
}

TEST_P(ReplicaHashTest, ADryRunMakesNoGeneration) {
  volume_.visible()->WriteAsStranger(1000, Sector());
  const uint64_t changes = directory_.changes();
  HashRequest request = Hash();
  request.allow_overwrite = true;
  request.dry_run = true;
  const auto start = replica_->StartHash(request, "alice");
  ASSERT_THAT(start, IsOk());
  EXPECT_TRUE(start->generation.none());
  EXPECT_EQ(HashesOf(*start->hasher), HashesOfVolume());
  EXPECT_EQ(directory_.changes(), changes);
}

TEST_P(ReplicaHashTest, ABlankVolumeOrOneThatIsTooSmallIsNotHashed) {
  HashRequest request = Hash();
  request.allow_overwrite = true;
  EXPECT_THAT(replica_->StartHash(request, "alice"),
              FailsWith(Reason::kBaseMismatch, "is blank"));
  request.source_size = kReplicaSize + 512;
  EXPECT_THAT(replica_->StartHash(request, "alice"),
              FailsWith(Reason::kTargetUnsuitable, "grow the target"));
}

TEST_P(ReplicaHashTest, AVolumeThatIsBeingWrittenIsNotHashed) {
  const auto grant = replica_->Open(Full(), "alice");
  ASSERT_THAT(grant, IsOk());
  const auto session = replica_->Find(grant->session, "alice");
  ASSERT_THAT(session, IsOk());
  const auto segment = (*session)->StartSegment(0);
  EXPECT_THAT(replica_->StartHash(Hash(), "bob"),
              FailsWith(Reason::kBusy, "being written by alice"));
}

TEST_P(ReplicaHashTest, OnePeerComparesAtATimeAndAsksAgainAsItLikes) {
  FirstSync();
  const auto first = replica_->StartHash(Hash(), "alice");
  ASSERT_THAT(first, IsOk());
  EXPECT_THAT(replica_->StartHash(Hash(), "bob"),
              FailsWith(Reason::kBusy, "being compared by alice"));
  EXPECT_THAT(replica_->Open(Request(first->generation), "bob"),
              FailsWith(Reason::kBusy, "being compared by alice"));
  auto second = replica_->StartHash(Hash(), "alice");
  ASSERT_THAT(second, IsOk());
  EXPECT_THAT(first->hasher->Next(), FailsWith(Reason::kConnection, "void"));
  EXPECT_THAT(second->hasher->Next(), IsOk());
  EXPECT_THAT(Sync(Request(second->generation)), IsOk());
  EXPECT_THAT(second->hasher->Next(), FailsWith(Reason::kConnection, "void"));
  second->hasher.reset();
  EXPECT_THAT(replica_->StartHash(Hash(), "bob"), IsOk());
}

TEST_P(ReplicaHashTest, ACrashAtAnyStepOfMakingTheGenerationIsGoneOnFrom) {
  volume_.visible()->WriteAsStranger(1000, Sector());
  HashRequest request = Hash();
  request.allow_overwrite = true;
  for (int step = 0; step < 12; ++step) {
    const SparseImage written = volume_.visible()->seen();
    int left = step;
    machine_.OnStep([this, &left] {
      if (left-- == 0) machine_.CutPower();
    });
    const auto start = replica_->StartHash(request, "alice");
    machine_.OnStep(nullptr);
    if (!start.ok()) Start();
    EXPECT_NE(state(), TargetState::kTorn) << step;
    EXPECT_EQ(volume_.visible()->seen(), written) << step;
    const auto again = replica_->StartHash(request, "alice");
    ASSERT_THAT(again, IsOk());
    EXPECT_EQ(HashesOf(*again->hasher), HashesOfVolume());
    EXPECT_EQ(directory_.record().generation, again->generation);
    WriteAsStranger();
  }
}

TEST_F(InPlaceReplicaHashTest, ATornVolumeIsNotHashed) {
  const SessionRequest first = FirstSync();
  ASSERT_THAT(replica_->Open(Request(first.generation), "alice"), IsOk());
  ASSERT_EQ(state(), TargetState::kTorn);
  HashRequest request = Hash();
  request.allow_overwrite = true;
  EXPECT_THAT(replica_->StartHash(request, "alice"),
              FailsWith(Reason::kBaseMismatch, "torn between generation"));
}

TEST_F(StagedReplicaHashTest, AnOpenSessionStaysWhenTheOldGenerationIsHashed) {
  const SessionRequest first = FirstSync();
  const SessionRequest request = Request(first.generation);
  const auto grant = replica_->Open(request, "alice");
  ASSERT_THAT(grant, IsOk());
  ASSERT_THAT(Send(*grant, 1), IsOk());
  const auto start = replica_->StartHash(Hash(), "alice");
  ASSERT_THAT(start, IsOk());
  EXPECT_EQ(start->generation, first.generation);
  EXPECT_EQ(replica_->Open(request, "alice")->watermark, 1U);
}

}  // namespace
}  // namespace snapsync
