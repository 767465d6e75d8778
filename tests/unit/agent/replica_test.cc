// SPDX-License-Identifier: Apache-2.0
//
// What is refused and why, and single histories that must stay as they are; on
// the ports of the simulation, without its faults. Random histories with faults
// are in tests/simulation.
#include "agent/replica.h"

#include "tests/unit/agent/replica_fixture.h"

namespace snapsync {
namespace {

INSTANTIATE_TEST_SUITE_P(Targets, ReplicaTest, testing::Bool(),
                         [](const auto& in_place) {
                           return in_place.param ? "InPlace" : "Staged";
                         });

TEST_P(ReplicaTest, ASourceThatDoesNotFitIsRefused) {
  SessionRequest request = Full();
  request.source_size = kReplicaSize + 512;
  EXPECT_THAT(replica_->Open(request, "alice"),
              FailsWith(Reason::kTargetUnsuitable, "grow the target"));
}

TEST_P(ReplicaTest, ARequestWithoutAGenerationIsRefused) {
  SessionRequest request = Full();
  request.generation = Id128{};
  EXPECT_THAT(replica_->Open(request, "alice"),
              FailsWith(Reason::kOther, "names no generation"));
}

TEST_P(ReplicaTest,
       AVolumeThatIsNotEmptyIsOverwrittenOnlyWhenTheOperatorAgrees) {
  volume_.visible()->WriteAsStranger(1000, Sector());
  SessionRequest request = Full();
  EXPECT_THAT(replica_->Open(request, "alice"),
              FailsWith(Reason::kTargetUnsuitable, "--allow-full"));
  request.covers_all = false;
  request.allow_overwrite = true;
  EXPECT_THAT(replica_->Open(request, "alice"),
              FailsWith(Reason::kBaseMismatch, "not empty"));
  request.covers_all = true;
  EXPECT_THAT(Sync(request), IsOk());
}

TEST_P(ReplicaTest, WhatOnlyASampleCallsBlankIsCoveredWholly) {
  volume_.JudgeBySample();
  SessionRequest request = Full();
  request.covers_all = false;
  EXPECT_THAT(replica_->Open(request, "alice"),
              FailsWith(Reason::kBaseMismatch, "a sample"));
  request.covers_all = true;
  EXPECT_THAT(Sync(request), IsOk());
}

TEST_P(ReplicaTest, ABaseThatIsNotTheVolumesIsRefused) {
  EXPECT_THAT(replica_->Open(Request(random_.Id()), "alice"),
              FailsWith(Reason::kBaseMismatch, "holds generation none"));
  FirstSync();
  EXPECT_THAT(replica_->Open(Request(random_.Id()), "alice"),
              FailsWith(Reason::kBaseMismatch, "the sender's base is"));
  EXPECT_THAT(replica_->Open(Full(), "alice"),
              FailsWith(Reason::kBaseMismatch, "has no base for it"));
}

TEST_P(ReplicaTest, AnotherReplicationIsRefused) {
  SessionRequest request = Request(FirstSync().generation);
  request.replication = "weekly";
  EXPECT_THAT(replica_->Open(request, "alice"),
              FailsWith(Reason::kTargetUnsuitable,
                        "replica of replication \"nightly\""));
}

TEST_P(ReplicaTest, AVolumeThatSomebodyWroteToIsNoBase) {
  const SessionRequest first = FirstSync();
  WriteAsStranger();
  EXPECT_THAT(replica_->Open(Request(first.generation), "alice"),
              FailsWith(Reason::kBaseMismatch, "somebody wrote"));
  SessionRequest full = Full();
  full.allow_overwrite = true;
  EXPECT_THAT(Sync(full), IsOk());
}

TEST_P(ReplicaTest, ASecondSenderIsToldWhoIsWriting) {
  const auto grant = replica_->Open(Full(), "alice");
  ASSERT_THAT(grant, IsOk());
  {
    const auto session = replica_->Find(grant->session, "alice");
    ASSERT_THAT(session, IsOk());
    const auto segment = (*session)->StartSegment(0);
    EXPECT_THAT(replica_->Open(Full(), "bob"),
                FailsWith(Reason::kBusy,
                          "being written by alice (replication nightly"));
    EXPECT_THAT(replica_->Abort("bob"), FailsWith(Reason::kBusy, "alice"));
  }
  EXPECT_THAT(replica_->Abort("bob"), IsOk());
}

TEST_P(ReplicaTest, WhoTakesOverWritesAndTheOtherIsTold) {
  const auto grant = replica_->Open(Full(), "alice");
  ASSERT_THAT(grant, IsOk());
  const auto session = replica_->Find(grant->session, "alice");
  ASSERT_THAT(session, IsOk());
  const auto segment = (*session)->StartSegment(0);
  ASSERT_THAT(segment, IsOk());
  EXPECT_THAT(replica_->TakeOver("bob"), IsOk());
  EXPECT_THAT((*segment)->Finish().status(),
              FailsWith(Reason::kBusy, "taken over by bob"));
  // Told to open it again she would take it back.
  EXPECT_THAT(replica_->Find(grant->session, "alice").status(),
              FailsWith(Reason::kBusy, "taken over by bob"));
  CommitRequest commit;
  commit.session = grant->session;
  EXPECT_THAT(replica_->Commit(commit, "alice").status(),
              FailsWith(Reason::kBusy, "taken over by bob"));
  // Alice's is still there for whoever has the same plan.
  EXPECT_THAT(replica_->Open(Full(), "bob"), IsOk());
  EXPECT_THAT(Sync(Full()), IsOk());
}

TEST_P(ReplicaTest, EachOfThoseThatWereTakenOverIsTold) {
  const auto first = replica_->Open(Full(), "alice");
  ASSERT_THAT(first, IsOk());
  EXPECT_THAT(replica_->TakeOver("bob"), IsOk());
  const auto second = replica_->Open(Full(), "bob");
  ASSERT_THAT(second, IsOk());
  EXPECT_THAT(replica_->TakeOver("carol"), IsOk());
  EXPECT_THAT(replica_->Find(first->session, "alice").status(),
              FailsWith(Reason::kBusy, "taken over by bob"));
  EXPECT_THAT(replica_->Find(second->session, "bob").status(),
              FailsWith(Reason::kBusy, "taken over by carol"));
}

TEST_P(ReplicaTest, TakingOverFromNobodyChangesNothing) {
  const SessionRequest first = FirstSync();
  ASSERT_THAT(replica_->Open(Request(first.generation), "alice"), IsOk());
  EXPECT_THAT(replica_->TakeOver("bob"), IsOk());
  EXPECT_EQ(replica_->Describe()->number, 1U);
  EXPECT_EQ(replica_->Describe()->generation, first.generation);
}

TEST_P(ReplicaTest, ASessionThatDoesNotMoveExpires) {
  using std::chrono::hours;
  const SessionRequest first = FirstSync();
  const auto begin = std::chrono::steady_clock::now();
  const SessionRequest request = Request(first.generation);
  ASSERT_THAT(replica_->Open(request, "alice"), IsOk());
  const auto state = [&] { return replica_->Describe()->state; };
  const std::string open = GetParam() ? "torn" : "filling";
  EXPECT_THAT(replica_->Tend(begin, hours(24)), IsOk());
  EXPECT_THAT(replica_->Tend(begin + hours(23), hours(24)), IsOk());
  EXPECT_EQ(state(), open);
  // It is opened again, and counts from then on.
  ASSERT_THAT(replica_->Open(request, "alice"), IsOk());
  EXPECT_THAT(replica_->Tend(begin + hours(25), hours(24)), IsOk());
  EXPECT_EQ(state(), open);
  EXPECT_THAT(replica_->Tend(begin + hours(49), hours(24)), IsOk());
  EXPECT_EQ(state(), GetParam() ? "torn" : "at");
  EXPECT_EQ(replica_->Describe()->generation, first.generation);
  // Only a torn target needs the same plan again.
  EXPECT_THAT(Sync(GetParam() ? request : Request(first.generation)), IsOk());
}

TEST_P(ReplicaTest, ACommitThatFailedIsFinishedWithoutASender) {
  const SessionRequest request = Full();
  KillInCommit(request);
  machine_.Boot();
  MakeReplica();
  const std::chrono::seconds never(0);
  EXPECT_THAT(replica_->Tend(std::chrono::steady_clock::now(), never), IsOk());
  EXPECT_EQ(state(), TargetState::kAt);
  EXPECT_EQ(replica_->Describe()->generation, request.generation);
}

TEST_P(ReplicaTest, ASessionBelongsToThePeerThatOpenedIt) {
  const auto grant = replica_->Open(Full(), "alice");
  ASSERT_THAT(grant, IsOk());
  EXPECT_THAT(replica_->Find(grant->session, "bob"),
              FailsWith(Reason::kConnection, "not open here"));
  EXPECT_THAT(replica_->Commit({"vol", grant->session, 2, {}}, "bob"),
              FailsWith(Reason::kConnection, "not open here"));
}

TEST_P(ReplicaTest, OpeningAgainGoesOnAndMakesTheOldOpeningVoid) {
  const SessionRequest request = Full();
  const auto first = replica_->Open(request, "alice");
  ASSERT_THAT(first, IsOk());
  const auto ack = Send(*first, 1);
  ASSERT_THAT(ack, IsOk());
  const auto second = replica_->Open(request, "alice");
  ASSERT_THAT(second, IsOk());
  EXPECT_EQ(second->watermark, 1U);
  EXPECT_EQ(second->digest, ack->digest);
  EXPECT_THAT(Send(*first, 2), FailsWith(Reason::kConnection, "not open here"));
  EXPECT_THAT(replica_->Commit({"vol", first->session, 2, {}}, "alice"),
              FailsWith(Reason::kConnection, "not open here"));
  EXPECT_THAT(Send(*second, 2), IsOk());
}

TEST_P(ReplicaTest, AnIncompleteSessionIsNotCommittedAndGoesOn) {
  const SessionRequest request = Full();
  const auto grant = replica_->Open(request, "alice");
  ASSERT_THAT(grant, IsOk());
  const auto ack = Send(*grant, 1);
  ASSERT_THAT(ack, IsOk());
  EXPECT_THAT(
      replica_->Commit({"vol", grant->session, 2, ack->digest}, "alice"),
      FailsWith(Reason::kVerification, "1 of 2 chunks"));
  EXPECT_THAT(Sync(request), IsOk());
}

TEST_P(ReplicaTest, ACommittedPlanIsAnsweredAsCommittedEvenGenerationsLater) {
  const SessionRequest first = FirstSync();
  const SessionRequest second = Request(first.generation);
  const auto receipt = Sync(second);
  ASSERT_THAT(receipt, IsOk());
  EXPECT_EQ(receipt->generation, second.generation);
  EXPECT_EQ(receipt->number, 2U);
  Start();
  for (const auto& [request, number] :
       {std::pair(first, 1U), std::pair(second, 2U)}) {
    const auto grant = replica_->Open(request, "bob");
    ASSERT_THAT(grant, IsOk());
    EXPECT_TRUE(grant->committed);
    EXPECT_EQ(grant->number, number);
  }
}

// A sender that was refused may come back with an id that it had before, and a
// plan of the same extents.
TEST_P(ReplicaTest, APlanFromWhatIsThereIsNotAnsweredByAnEarlierReceipt) {
  const SessionRequest first = FirstSync();
  const SessionRequest second = Request(first.generation);
  ASSERT_THAT(Sync(second), IsOk());
  const SessionRequest third = Request(second.generation);
  ASSERT_THAT(Sync(third), IsOk());
  SessionRequest again = second;
  again.base = third.generation;
  const auto grant = replica_->Open(again, "alice");
  ASSERT_THAT(grant, IsOk());
  EXPECT_FALSE(grant->committed);
}

TEST_P(ReplicaTest, ASessionIsThereAfterARestart) {
  const SessionRequest request = Full();
  const auto grant = replica_->Open(request, "alice");
  ASSERT_THAT(grant, IsOk());
  ASSERT_THAT(Send(*grant, 1), IsOk());
  machine_.CutPower();
  Start();
  EXPECT_THAT(Send(*grant, 2), FailsWith(Reason::kConnection, "not open here"));
  const auto again = replica_->Open(request, "alice");
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(again->watermark, 1U);
}

TEST_P(ReplicaTest, ACommitThatACrashInterruptedIsFinishedAtTheStart) {
  const SessionRequest request = Full();
  const auto grant = replica_->Open(request, "alice");
  ASSERT_THAT(grant, IsOk());
  const auto ack = Send(*grant, 2);
  ASSERT_THAT(ack, IsOk());
  volume_.OnSwitched([this] { machine_.Kill(); });
  EXPECT_FALSE(
      replica_->Commit({"vol", grant->session, 2, ack->digest}, "alice").ok());
  volume_.OnSwitched([] {});
  EXPECT_EQ(state(), TargetState::kCommitting);
  Start();
  EXPECT_EQ(state(), TargetState::kAt);
  EXPECT_TRUE(replica_->Open(request, "alice")->committed);
}

TEST_P(ReplicaTest, TheVolumeIsDescribed) {
  const auto empty = replica_->Describe();
  ASSERT_THAT(empty, IsOk());
  EXPECT_EQ(empty->state, "empty");
  EXPECT_TRUE(empty->blank);
  const SessionRequest request = FirstSync();
  const auto at = replica_->Describe();
  ASSERT_THAT(at, IsOk());
  EXPECT_EQ(at->name, "vol");
  EXPECT_EQ(at->kind, "simulated");
  EXPECT_EQ(at->state, "at");
  EXPECT_EQ(at->size, kReplicaSize);
  EXPECT_EQ(at->replication, "nightly");
  EXPECT_EQ(at->generation, request.generation);
  EXPECT_EQ(at->number, 1U);
}

TEST_P(ReplicaTest, OnlyTheLastReceiptsAreKept) {
  SessionRequest request = FirstSync();
  for (size_t i = 0; i < TargetRecord::kGenerationsKept; ++i) {
    request = Request(request.generation);
    ASSERT_THAT(Sync(request), IsOk());
  }
  EXPECT_EQ(directory_.record().generations.size(),
            TargetRecord::kGenerationsKept);
  EXPECT_EQ(directory_.record().generations.back().generation,
            request.generation);
}

TEST_F(StagedReplicaTest, UntilTheCommitTheVolumeIsTheOldOne) {
  const SessionRequest first = FirstSync();
  const SparseImage old = volume_.visible()->seen();
  const auto grant = replica_->Open(Request(first.generation), "alice");
  ASSERT_THAT(grant, IsOk());
  ASSERT_THAT(Send(*grant, 2), IsOk());
  EXPECT_EQ(volume_.visible()->seen(), old);
  EXPECT_EQ(state(), TargetState::kFilling);
  EXPECT_THAT(replica_->Abort("alice"), IsOk());
  EXPECT_EQ(state(), TargetState::kAt);
  EXPECT_EQ(volume_.stage(), nullptr);
  EXPECT_EQ(volume_.visible()->seen(), old);
}

TEST_F(StagedReplicaTest, AWriteBetweenOpenAndCommitIsNotSweptAway) {
  const SessionRequest first = FirstSync();
  const SessionRequest request = Request(first.generation);
  const auto grant = replica_->Open(request, "alice");
  ASSERT_THAT(grant, IsOk());
  const auto ack = Send(*grant, 2);
  ASSERT_THAT(ack, IsOk());
  WriteAsStranger();
  const SparseImage written = volume_.visible()->seen();
  EXPECT_THAT(
      replica_->Commit({"vol", grant->session, 2, ack->digest}, "alice"),
      FailsWith(Reason::kBaseMismatch, "somebody wrote"));
  EXPECT_EQ(volume_.visible()->seen(), written);
  EXPECT_EQ(state(), TargetState::kAt);
}

TEST_F(StagedReplicaTest, WhenTheStageIsGoneTheSessionStartsAgain) {
  const SessionRequest request = Full();
  const auto grant = replica_->Open(request, "alice");
  ASSERT_THAT(grant, IsOk());
  ASSERT_THAT(Send(*grant, 1), IsOk());
  ASSERT_THAT(volume_.Open()->RemoveStage(""), IsOk());
  Start();
  const auto again = replica_->Open(request, "alice");
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(again->watermark, 0U);
}

TEST_F(InPlaceReplicaTest, ATornVolumeTakesTheSamePlanOrAllOfIt) {
  const SessionRequest first = FirstSync();
  const SessionRequest request = Request(first.generation);
  const auto grant = replica_->Open(request, "alice");
  ASSERT_THAT(grant, IsOk());
  EXPECT_EQ(state(), TargetState::kTorn);
  ASSERT_THAT(Send(*grant, 1), IsOk());
  Start();
  EXPECT_THAT(replica_->Open(Request(first.generation), "alice"),
              FailsWith(Reason::kBaseMismatch, "torn between generation"));
  EXPECT_THAT(replica_->Abort("alice"), IsOk());
  EXPECT_EQ(state(), TargetState::kTorn);
  EXPECT_THAT(Sync(Full()), IsOk());
  EXPECT_EQ(state(), TargetState::kAt);
}

TEST_F(InPlaceReplicaTest, ACommitThatCantBeFinishedDoesNotStandInTheWay) {
  const SessionRequest request = Full();
  KillInCommit(request);
  machine_.Boot();
  // As if it were another device now.
  ASSERT_THAT(volume_.Open()->RemoveStage(""), IsOk());
  MakeReplica();
  EXPECT_THAT(replica_->Recover(), FailsWith(Reason::kBaseMismatch, ""));
  EXPECT_EQ(state(), TargetState::kTorn);
  EXPECT_THAT(Sync(Full()), IsOk());
}

// Found by the simulation.
TEST_F(InPlaceReplicaTest, ACrashWhileASessionIsOpenedIsNoReasonForAFullSync) {
  const SessionRequest first = FirstSync();
  const SessionRequest request = Request(first.generation);
  machine_.OnStep([this] {
    if (state() == TargetState::kTorn) machine_.Kill();
  });
  EXPECT_FALSE(replica_->Open(request, "alice").ok());
  machine_.OnStep(nullptr);
  EXPECT_EQ(state(), TargetState::kTorn);
  EXPECT_TRUE(directory_.record().session->stage.empty());
  Start();
  EXPECT_THAT(Sync(request), IsOk());
}

}  // namespace
}  // namespace snapsync
