// SPDX-License-Identifier: Apache-2.0
#include "common/thin/guards.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "common/base/error.h"
#include "common/thin/format.h"

namespace snapsync {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

// All that the guards look at, in a state in which none of them refuses.
struct Facts {
  Superblock superblock;
  std::optional<PoolStatus> status;
  BaseRecord record;
  PoolFacts pool;
  std::optional<ThinDevice> device;

  Facts() {
    superblock.time = 10;
    superblock.transaction_id = 20;
    superblock.data_block_sectors = 128;
    status = PoolStatus();
    status->mode = "rw";
    record.vg_uuid = pool.vg_uuid = "vg";
    record.pool_uuid = pool.pool_uuid = "pool";
    record.lv_uuid = pool.base_lv_uuid = "base";
    record.device_id = 3;
    record.transaction_id = 18;
    record.creation_time = 8;
    record.snapshotted_time = 8;
    record.mapped_blocks = 100;
    record.pool_time = 9;
    record.pool_transaction_id = 19;
    record.data_block_sectors = 128;
    record.device_size = 1 << 30;
    device = ThinDevice{3, 77, 100, 18, 8, 8};
  }

  absl::Status Check() const {
    absl::Status result = CheckPool(superblock, status);
    if (result.ok()) result = CheckSnapshot(pool);
    if (result.ok()) result = CheckBase(record, superblock, pool, device);
    return result;
  }
};

struct Case {
  const char* name;
  Guard guard;
  const char* text;
  std::function<void(Facts&)> change;
};

void PrintTo(const Case& refused, std::ostream* out) { *out << refused.name; }

class ChangedFact : public ::testing::TestWithParam<Case> {};

TEST_P(ChangedFact, IsRefusedByItsGuard) {
  Facts facts;
  ASSERT_TRUE(facts.Check().ok()) << facts.Check();
  GetParam().change(facts);
  const absl::Status status = facts.Check();
  EXPECT_EQ(ReasonOf(status), Reason::kBaseMismatch);
  EXPECT_EQ(GuardOf(status), GetParam().guard);
  EXPECT_THAT(
      MessageOf(status),
      StartsWith("G" + std::to_string(static_cast<int>(GetParam().guard)) +
                 ": "));
  EXPECT_THAT(MessageOf(status), HasSubstr(GetParam().text));
  EXPECT_THAT(MessageOf(status), HasSubstr("expected"));
  EXPECT_THAT(MessageOf(status), HasSubstr("; "));
}

INSTANTIATE_TEST_SUITE_P(
    Guards, ChangedFact,
    ::testing::Values(
        Case{"NeedsCheckOnDisk", Guard::kPoolHealthy, "in the superblock",
             [](Facts& f) { f.superblock.needs_check = true; }},
        Case{"NeedsCheckInMemory", Guard::kPoolHealthy, "found needs_check",
             [](Facts& f) { f.status->needs_check = true; }},
        Case{"ReadOnly", Guard::kPoolHealthy, "mode ro",
             [](Facts& f) { f.status->mode = "ro"; }},
        Case{"Failed", Guard::kPoolHealthy, "a failed pool",
             [](Facts& f) { f.status->failed = true; }},
        Case{"OtherBlockSize", Guard::kSamePool, "found 256, expected 128",
             [](Facts& f) { f.superblock.data_block_sectors = 256; }},
        Case{"TooManySnapshots", Guard::kSameTimeline, "16777216",
             [](Facts& f) { f.superblock.time = kTimeLimit; }},
        Case{"TimeSetBack", Guard::kSameTimeline, "found 8",
             [](Facts& f) { f.superblock.time = 8; }},
        Case{"TransactionSetBack", Guard::kSameTimeline, "found 18",
             [](Facts& f) { f.superblock.transaction_id = 18; }},
        Case{"OtherVolumeGroup", Guard::kSameVolume, "found other",
             [](Facts& f) { f.pool.vg_uuid = "other"; }},
        Case{"OtherPool", Guard::kSameVolume, "found other",
             [](Facts& f) { f.pool.pool_uuid = "other"; }},
        Case{"OtherVolumeUnderTheId", Guard::kSameVolume, "found other",
             [](Facts& f) { f.pool.base_lv_uuid = "other"; }},
        Case{"NoVolumeUnderTheId", Guard::kSameVolume, "found none",
             [](Facts& f) { f.pool.base_lv_uuid.clear(); }},
        Case{"BaseDeleted", Guard::kSameDevice, "found none",
             [](Facts& f) { f.device.reset(); }},
        Case{"OtherTransaction", Guard::kSameDevice, "found 19, expected 18",
             [](Facts& f) { f.device->transaction_id = 19; }},
        Case{"OtherCreation", Guard::kSameDevice, "found 9, expected 8",
             [](Facts& f) { f.device->creation_time = 9; }},
        Case{"Trimmed", Guard::kSameDevice, "found 99, expected 100",
             [](Facts& f) { f.device->mapped_blocks = 99; }},
        Case{"BaseWithExternalOrigin", Guard::kKnownContents, "external origin",
             [](Facts& f) { f.record.external_origin = true; }},
        Case{"BaseOfUnknownSize", Guard::kKnownContents, "size",
             [](Facts& f) { f.record.device_size = 0; }},
        Case{"SnapshotWithExternalOrigin", Guard::kKnownContents,
             "external origin",
             [](Facts& f) { f.pool.snapshot_external_origin = true; }}),
    [](const auto& test) { return test.param.name; });

TEST(Guards, APoolWithoutSpaceStillHasItsSnapshots) {
  Facts facts;
  facts.status->mode = "out_of_data_space";
  EXPECT_TRUE(facts.Check().ok());
}

TEST(Guards, ABaseThatWasSnapshottedSinceIsTheSameBase) {
  Facts facts;
  facts.device->snapshotted_time = 10;
  EXPECT_TRUE(facts.Check().ok());
  EXPECT_TRUE(BaseNeedsWholeWalk(*facts.device));
}

TEST(Guards, AMappingAsYoungAsItsDeviceWasWrittenAfterIt) {
  ThinDevice device;
  device.creation_time = 8;
  TreeWalk walk;
  walk.entries = 5;
  walk.latest_time = 7;
  EXPECT_TRUE(CheckBaseFrozen(device, walk).ok());
  EXPECT_TRUE(CheckSnapshotFrozen(device, walk).ok());
  walk.latest_time = 8;
  EXPECT_EQ(GuardOf(CheckBaseFrozen(device, walk)), Guard::kBaseFrozen);
  EXPECT_EQ(GuardOf(CheckSnapshotFrozen(device, walk)), Guard::kSnapshotFrozen);
}

TEST(Guards, ADeviceWithoutMappingsWasNotWrittenTo) {
  EXPECT_TRUE(CheckSnapshotFrozen(ThinDevice(), TreeWalk()).ok());
}

TEST(Guards, APoolNearTheEndOfItsTimeIsWarnedOf) {
  Superblock superblock;
  superblock.time = kTimeWarning - 1;
  EXPECT_THAT(PoolWarnings(superblock), IsEmpty());
  superblock.time = kTimeWarning;
  EXPECT_THAT(PoolWarnings(superblock), SizeIs(1));
}

TEST(Guards, OtherErrorsAreNoRefusals) {
  EXPECT_EQ(GuardOf(absl::OkStatus()), std::nullopt);
  EXPECT_EQ(GuardOf(Error(Reason::kBaseMismatch, "G5: says the text")),
            std::nullopt);
}

}  // namespace
}  // namespace snapsync
