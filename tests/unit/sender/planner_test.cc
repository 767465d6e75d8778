// SPDX-License-Identifier: Apache-2.0
//
// The ladder of methods: which one is taken for which state of the target, and
// what it says. The source is a file, with thin metadata in another one.
#include "sender/planner.h"

#include "gtest/gtest.h"
#include "tests/testing/random.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temporary_folder.h"
#include "tests/unit/common/thin/metadata_builder.h"
#include "tests/unit/sender/comparing_agent.h"

namespace snapsync {
namespace {

using testing::HasSubstr;

constexpr uint64_t kBlock = 64 * kKiB;
constexpr uint64_t kSize = 16 * kBlock;
constexpr uint32_t kBaseId = 1;
constexpr uint32_t kSnapshotId = 2;

class PlannerTest : public testing::Test {
 protected:
  PlannerTest() {
    // The base has blocks 0 to 7; since then block 3 was written to and block 5
    // discarded.
    DeviceContents base;
    for (uint64_t block = 0; block < 8; ++block) {
      base.mappings[block] = Mapping{block, 0};
    }
    base.transaction_id = 1;
    base.creation_time = base.snapshotted_time = 1;
    DeviceContents snapshot = base;
    snapshot.mappings[3] = Mapping{20, 1};
    snapshot.mappings.erase(5);
    snapshot.transaction_id = 2;
    snapshot.creation_time = snapshot.snapshotted_time = 2;
    MetadataBuilder builder(8, 8);
    const auto image =
        builder.Finish({{kBaseId, base}, {kSnapshotId, snapshot}}, 2, 128);
    WriteContents(folder_ / "metadata",
                  {reinterpret_cast<const char*>(image.data()), image.size()});
    std::vector<std::byte> bytes(kSize);
    for (const auto& [block, mapping] : snapshot.mappings) {
      random_.Fill(std::span(bytes).subspan(block * kBlock, kBlock));
    }
    WriteContents(folder_ / "source",
                  {reinterpret_cast<const char*>(bytes.data()), kSize});
    agent_.device->bytes = bytes;
    agent_.generation = random_.Id();

    options_.volume = "vol";
    options_.replication = "nightly";
    options_.interrupted = [] { return false; };
    options_.notice = [](const std::string&) {};
    target_.name = "vol";
    target_.state = "at";
    target_.size = kSize;
    target_.replication = "nightly";
    target_.generation = agent_.generation;
    state_.base =
        BaseState{target_.generation, {}, RecordOf(kBaseId), std::nullopt};
    source_ = Open(kSnapshotId);
  }

  std::unique_ptr<SourceSnapshot> Open(std::optional<uint32_t> id) {
    SourceOptions options;
    options.path = folder_ / "source";
    options.state_directory = folder_.path();
    if (id) {
      options.meta = folder_ / "metadata";
      options.id = id;
    }
    auto source = SourceSnapshot::Open(options, {});
    EXPECT_THAT(source, IsOk());
    return *std::move(source);
  }
  BaseRecord RecordOf(uint32_t id) {
    const auto delta = Open(id)->DeltaFrom(std::nullopt);
    EXPECT_THAT(delta, IsOk());
    return delta->record;
  }
  ReplicationStore OpenStore() {
    auto store = ReplicationStore::Open(folder_.path(), "nightly", "nas2:vol");
    EXPECT_THAT(store, IsOk());
    return *std::move(store);
  }
  Planner MakePlanner() { return {*source_, agent_, store_, options_}; }
  absl::StatusOr<PlannedSync> MakePlan() {
    return MakePlanner().Plan(state_, target_);
  }
  void ExpectPlan(const std::string& method, const std::string& why) {
    const auto planned = MakePlan();
    ASSERT_THAT(planned, IsOk());
    EXPECT_EQ(planned->method, method);
    EXPECT_THAT(planned->why, HasSubstr(why));
  }
  void Touch(uint64_t block) {
    agent_.device->bytes[block * kBlock] ^= std::byte{1};
  }
  static ExtentList Blocks(uint64_t first, uint64_t count) {
    ExtentList list;
    list.Append({first * kBlock, count * kBlock});
    return list;
  }

  Random random_{1};
  const TemporaryFolder folder_;
  ReplicationStore store_ = OpenStore();
  ComparingAgent agent_{kSize};
  PlannerOptions options_;
  VolumeState target_;
  ReplicationState state_;
  std::unique_ptr<SourceSnapshot> source_;
};

TEST_F(PlannerTest, ABaseThatPassesTheGuardsGivesTheDelta) {
  ExpectPlan("metadata", "is still in the pool");
  const auto planned = MakePlan();
  EXPECT_EQ(planned->plan.changed(), Blocks(3, 1));
  EXPECT_EQ(planned->plan.gone(), Blocks(5, 1));
  EXPECT_EQ(planned->base, target_.generation);
  EXPECT_FALSE(agent_.asked.has_value());
}

TEST_F(PlannerTest, SavedMappingsAreOfNoUseWithoutLvmsUuids) {
  state_.base->record.mapped_blocks += 1;  // G5
  state_.base->saved.emplace();
  ExpectPlan("hash", "G5");
  ExpectPlan("hash", "G9");
  options_.method = "saved";
  EXPECT_THAT(MakePlan(), FailsWith(Reason::kBaseMismatch, "G9"));
}

TEST_F(PlannerTest, ABlankTargetGetsAllThatIsMapped) {
  target_ = VolumeState{};
  target_.state = "empty";
  target_.blank = true;
  ExpectPlan("full", "first sync");
  const auto planned = MakePlan();
  EXPECT_EQ(planned->plan.changed_bytes(), 7 * kBlock);
  EXPECT_TRUE(planned->plan.gone().empty());
  EXPECT_FALSE(planned->covers_all);
  for (const char* method : {"hash", "saved"}) {
    options_.method = method;
    EXPECT_THAT(MakePlan(), FailsWith(Reason::kBaseMismatch, "is blank"));
  }
}

TEST_F(PlannerTest, APlainDeviceThatLooksBlankGetsZeroesWhereNothingIsMapped) {
  target_ = VolumeState{};
  target_.state = "empty";
  target_.kind = "block";
  target_.blank = true;
  ExpectPlan("full", "first sync");
  const auto planned = MakePlan();
  EXPECT_TRUE(planned->covers_all);
  EXPECT_EQ(planned->plan.changed_bytes(), 7 * kBlock);
  EXPECT_EQ(planned->plan.gone_bytes(), kSize - 7 * kBlock);
}

TEST_F(PlannerTest, AGuardThatRefusesLeadsToComparing) {
  state_.base->record.transaction_id += 1;
  Touch(2);
  Touch(9);
  ExpectPlan("hash", "G");
  const auto planned = MakePlan();
  EXPECT_EQ(planned->plan.changed(), Blocks(2, 1));
  EXPECT_EQ(planned->plan.gone(), Blocks(9, 1));
  EXPECT_EQ(planned->base, agent_.generation);
  EXPECT_FALSE(planned->covers_all);
  ASSERT_TRUE(planned->record.has_value());
  EXPECT_EQ(*planned->record, RecordOf(kSnapshotId));
  EXPECT_FALSE(agent_.asked->allow_overwrite);
  EXPECT_EQ(agent_.asked->source_size, kSize);
  EXPECT_EQ(agent_.asked->replication, "nightly");
}

TEST_F(PlannerTest, WithoutTheBaseOfTheTargetItCompares) {
  state_.base->generation = random_.Id();
  ExpectPlan("hash", "this sender's base is");
  state_.base.reset();
  ExpectPlan("hash", "no base for generation");
}

TEST_F(PlannerTest, AThickSourceIsCompared) {
  source_ = Open(std::nullopt);
  Touch(12);
  ExpectPlan("hash", "no thin metadata");
  const auto planned = MakePlan();
  EXPECT_EQ(planned->plan.changed(), Blocks(12, 1));
  EXPECT_FALSE(planned->record.has_value());
  EXPECT_EQ(planned->warnings.size(), 1U);
}

TEST_F(PlannerTest, ATargetThatWasWrittenToIsOverwrittenOnlyByConsent) {
  state_.base.reset();
  agent_.refusal = Error(Reason::kBaseMismatch, "somebody wrote to it");
  EXPECT_THAT(MakePlan(),
              FailsWith(Reason::kBaseMismatch, "somebody wrote to it; --yes"));
  agent_.refusal = absl::OkStatus();
  options_.overwrite = true;
  ExpectPlan("hash", "no base");
  EXPECT_TRUE(agent_.asked->allow_overwrite);
  options_.allow_full = true;
  ExpectPlan("full", "no base");
  EXPECT_TRUE(MakePlan()->covers_all);
}

TEST_F(PlannerTest, ARefusedDeltaIsPlannedAnewOnlyByConsent) {
  const absl::Status refusal = Error(Reason::kBaseMismatch, "somebody wrote");
  EXPECT_THAT(MakePlanner().PlanAfterRefusal(refusal, target_),
              FailsWith(Reason::kBaseMismatch, "somebody wrote; --yes"));
  options_.overwrite = true;
  auto planned = MakePlanner().PlanAfterRefusal(refusal, target_);
  ASSERT_THAT(planned, IsOk());
  EXPECT_EQ(planned->method, "hash");
  EXPECT_EQ(planned->why, "somebody wrote");
  options_.allow_full = true;
  EXPECT_EQ(MakePlanner().PlanAfterRefusal(refusal, target_)->method, "full");
  options_.method = "metadata";
  EXPECT_THAT(MakePlanner().PlanAfterRefusal(refusal, target_),
              FailsWith(Reason::kBaseMismatch, "somebody wrote"));
}

TEST_F(PlannerTest, WhatIsNoReplicaOfThisReplicationNeedsConsent) {
  VolumeState strange = target_;
  strange.generation = Id128{};
  strange.state = "empty";
  strange.replication = "";
  VolumeState others = target_;
  others.replication = "weekly";
  for (const auto& [target, what] :
       {std::pair(strange, "not empty"), std::pair(others, "\"weekly\"")}) {
    target_ = target;
    options_.overwrite = options_.allow_full = false;
    EXPECT_THAT(MakePlan(), FailsWith(Reason::kTargetUnsuitable, what));
    EXPECT_THAT(MakePlan(), FailsWith(Reason::kTargetUnsuitable, "--yes"));
    options_.overwrite = true;
    ExpectPlan("hash", what);
    EXPECT_TRUE(agent_.asked->allow_overwrite);
    options_.allow_full = true;
    ExpectPlan("full", what);
    EXPECT_TRUE(MakePlan()->covers_all);
  }
}

TEST_F(PlannerTest, AReplicaThatIsBlankNowIsNotCompared) {
  target_.blank = true;
  state_.base.reset();
  options_.overwrite = true;
  ExpectPlan("full", "no base");
}

TEST_F(PlannerTest, ATornTargetIsWrittenAnew) {
  target_.state = "torn";
  ExpectPlan("full", "torn");
  EXPECT_TRUE(MakePlan()->covers_all);
  options_.method = "hash";
  EXPECT_THAT(MakePlan(), FailsWith(Reason::kBaseMismatch, "torn"));
}

TEST_F(PlannerTest, AMethodCanBeForcedAndIsRefusedWithTheReason) {
  options_.method = "hash";
  ExpectPlan("hash", "--method hash");
  options_.method = "full";
  EXPECT_THAT(MakePlan(), FailsWith(Reason::kBaseMismatch, "--allow-full"));
  options_.overwrite = true;
  ExpectPlan("full", "--method full");
  options_.method = "hash";
  options_.allow_full = true;
  ExpectPlan("hash", "--method hash");
  options_.method = "metadata";
  ExpectPlan("metadata", "is still in the pool");
  state_.base.reset();
  EXPECT_THAT(MakePlan(),
              FailsWith(Reason::kBaseMismatch, "--method metadata: this"));
}

TEST_F(PlannerTest, ADryRunAsksForNoGeneration) {
  state_.base.reset();
  options_.dry_run = true;
  ExpectPlan("hash", "no base");
  EXPECT_TRUE(agent_.asked->dry_run);
}

TEST_F(PlannerTest, AnInterruptedComparisonIsGoneOnWithAsItWas) {
  const SavedPlan saved{random_.Id(), target_.generation,
                        Plan(kSize, Blocks(1, 2), Blocks(9, 1))};
  ASSERT_THAT(store_.SavePlan(saved), IsOk());
  state_.base.reset();
  state_.pending =
      PendingState{saved.generation, saved.base, false, "hash", true, {}, ""};
  target_.state = "filling";
  ExpectPlan("hash", "continued");
  auto planned = MakePlan();
  EXPECT_EQ(planned->plan.digest(), saved.plan.digest());
  EXPECT_EQ(planned->base, saved.base);
  EXPECT_EQ(*planned->record, RecordOf(kSnapshotId));
  EXPECT_FALSE(agent_.asked.has_value());

  // Of another sync, or damaged: compared anew.
  state_.pending->generation = random_.Id();
  ExpectPlan("hash", "no base");
  EXPECT_TRUE(agent_.asked.has_value());
  state_.pending->generation = saved.generation;
  ASSERT_THAT(store_.RemovePlan(), IsOk());
  ExpectPlan("hash", "no base");
}

}  // namespace
}  // namespace snapsync
