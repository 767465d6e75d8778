// SPDX-License-Identifier: Apache-2.0
//
// A replica that is written to by its own host: receives nothing, until what it
// holds is elsewhere.
#include "tests/unit/agent/replica_fixture.h"

namespace snapsync {
namespace {

using ReplicaPromoteTest = StagedReplicaTest;

TEST_F(ReplicaPromoteTest, ABlankOneCanNotBePromoted) {
  EXPECT_THAT(replica_->Promote(),
              FailsWith(Reason::kTargetUnsuitable, "promoted"));
}

TEST_F(ReplicaPromoteTest, APromotedOneReceivesNothingAlsoAfterARestart) {
  const Id128 base = FirstSync().generation;
  ASSERT_THAT(replica_->Promote(), IsOk());
  ASSERT_THAT(replica_->Promote(), IsOk());
  Start();
  EXPECT_TRUE(replica_->Describe()->promoted);
  EXPECT_THAT(replica_->Open(Request(base), "alice").status(),
              FailsWith(Reason::kTargetUnsuitable, "promoted"));
  HashRequest hash;
  hash.volume = "vol";
  hash.replication = "nightly";
  hash.source_size = kReplicaSize;
  hash.allow_overwrite = true;
  EXPECT_THAT(replica_->StartHash(hash, "alice").status(),
              FailsWith(Reason::kTargetUnsuitable, "promoted"));
}

TEST_F(ReplicaPromoteTest, ItReceivesAgainWhenNothingWouldBeLost) {
  const Id128 base = FirstSync().generation;
  ASSERT_THAT(replica_->Promote(), IsOk());
  ASSERT_THAT(replica_->EndPromotion(), IsOk());
  EXPECT_FALSE(replica_->Describe()->promoted);
  EXPECT_THAT(replica_->Open(Request(base), "alice"), IsOk());
}

TEST_F(ReplicaPromoteTest, WrittenToItStaysPromoted) {
  FirstSync();
  ASSERT_THAT(replica_->Promote(), IsOk());
  WriteAsStranger();
  EXPECT_THAT(replica_->EndPromotion(), FailsWith(Reason::kBaseMismatch, ""));
  EXPECT_TRUE(replica_->Describe()->promoted);
}

TEST_F(ReplicaPromoteTest, NothingInCommonIsSaidBeforeAnythingIsDone) {
  FirstSync();
  ChangesRequest request;
  request.target.volume = "vol";
  request.target.replication = "nightly";
  request.target.source_size = kReplicaSize;
  request.candidates = {Id128::Random()};
  const uint64_t number = replica_->Describe()->number;
  EXPECT_THAT(replica_->ChangedSince(request, "alice").status(),
              FailsWith(Reason::kBaseMismatch, ""));
  EXPECT_EQ(replica_->Describe()->number, number);
}

}  // namespace
}  // namespace snapsync
