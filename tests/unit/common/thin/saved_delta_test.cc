// SPDX-License-Identifier: Apache-2.0
//
// The rule for saved mappings, and its guards, on built metadata. The numbers
// of the counter-examples (b1, b2, ...) are those of docs/delta.md.
#include "common/thin/saved_delta.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <random>
#include <set>

#include "common/base/error.h"
#include "tests/unit/common/thin/memory_metadata.h"
#include "tests/unit/common/thin/metadata_builder.h"

namespace snapsync {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kBlock = 65536;
constexpr uint32_t kBaseId = 1;
constexpr uint32_t kSnapshotId = 2;
constexpr uint32_t kWitnessId = 3;

class SavedDelta : public ::testing::Test {
 protected:
  SavedDelta() {
    char folder[] = "/tmp/saved-delta-XXXXXX";
    folder_ = ::mkdtemp(folder);
    name_.id = Id128::Random();
    name_.generation = Id128::Random();
    for (uint64_t block = 0; block < 8; ++block) base_[block] = {block, 2};
  }
  ~SavedDelta() override { std::filesystem::remove_all(folder_); }

  // Saves the base's mappings in a pool in which it is there, at time 5.
  absl::Status Save() {
    MetadataBuilder builder(4, 4);
    MemoryMetadata metadata(
        builder.Finish({{kBaseId, {base_, 7, 5, 5}}}, 5, 128));
    auto view = PoolView::Open(metadata, false);
    if (!view.ok()) return view.status();
    record_.vg_uuid = facts_.vg_uuid = "vg";
    record_.pool_uuid = facts_.pool_uuid = "pool";
    record_.lv_uuid = "base";
    record_.device_id = kBaseId;
    record_.transaction_id = 7;
    record_.creation_time = record_.snapshotted_time = 5;
    record_.mapped_blocks = base_.size();
    record_.data_block_sectors = 128;
    record_.pool_time = 5;
    record_.device_size = base_size_;
    witness_ = {{"witness", kWitnessId, 8, 5}, "witness"};
    path_ = folder_ + "/mappings";
    std::filesystem::remove(path_);
    auto file = MappingsFile::Create(path_);
    if (!file.ok()) return file.status();
    MappingsWriter writer(name_,
                          [&](auto bytes) { return file->Append(bytes); });
    if (auto s = SaveMappings(*view, record_, writer); !s.ok()) return s;
    return file->Finish();
  }

  // In a pool in which the base is not any more, but the witness is.
  absl::StatusOr<GuardedDelta> Compute() {
    MetadataBuilder builder(4, 4);
    std::map<uint32_t, DeviceContents> pool = {
        {kSnapshotId, {snapshot_, 9, snapshot_time_, snapshot_time_}}};
    if (has_witness_) pool[kWitnessId] = {{}, 8, 5, 5};
    MemoryMetadata metadata(builder.Finish(pool, pool_time_, 128));
    auto view = PoolView::Open(metadata, false);
    if (!view.ok()) return view.status();
    DeltaRequest request;
    request.snapshot_id = kSnapshotId;
    request.snapshot_size = snapshot_size_;
    request.base = record_;
    request.facts = facts_;
    return ComputeSavedDelta(*view, request, path_, name_, {witness_});
  }
  void ExpectGuard(Guard guard, const std::string& text) {
    const auto delta = Compute();
    EXPECT_EQ(GuardOf(delta.status()), guard) << delta.status();
    EXPECT_THAT(MessageOf(delta.status()), HasSubstr(text));
  }
  static ExtentList Blocks(const std::set<uint64_t>& blocks) {
    ExtentList list;
    for (const uint64_t block : blocks) list.Append({block * kBlock, kBlock});
    return list;
  }

  std::string folder_;
  std::string path_;
  SavedMappingsName name_;
  MappingMap base_;
  uint64_t base_size_ = 64 * kBlock;
  BaseRecord record_;
  PoolFacts facts_;
  WitnessLookup witness_;
  bool has_witness_ = true;
  MappingMap snapshot_;
  uint32_t snapshot_time_ = 9;
  uint64_t snapshot_size_ = 64 * kBlock;
  uint32_t pool_time_ = 9;
};

TEST_F(SavedDelta, IsWhatChangedAndWhatIsGone) {
  ASSERT_TRUE(Save().ok());
  snapshot_ = base_;
  snapshot_[3] = {20, 6};
  snapshot_[12] = {21, 6};
  snapshot_.erase(5);
  snapshot_.erase(0);
  const auto delta = Compute();
  ASSERT_TRUE(delta.ok()) << delta.status();
  EXPECT_EQ(delta->delta.changed, Blocks({3, 12}));
  EXPECT_EQ(delta->delta.gone, Blocks({0, 5}));
  EXPECT_EQ(delta->record.device_id, kSnapshotId);
}

TEST_F(SavedDelta, ADataBlockThatWasUsedAgainIsAChange) {
  // b1: freed, and given to the same virtual block again.
  ASSERT_TRUE(Save().ok());
  snapshot_ = base_;
  snapshot_[4].time = 6;
  const auto delta = Compute();
  ASSERT_TRUE(delta.ok()) << delta.status();
  EXPECT_EQ(delta->delta.changed, Blocks({4}));
}

TEST_F(SavedDelta, AMappingAsYoungAsTheBaseIsAChangeEvenIfItLooksTheSame) {
  // b2: such a base is not saved; but if it were.
  base_[4].time = 5;
  EXPECT_EQ(GuardOf(Save()), Guard::kSnapshotFrozen);
  base_[4].time = 2;
  ASSERT_TRUE(Save().ok());
  record_.creation_time = 2;
  snapshot_ = base_;
  snapshot_[7].time = 1;
  const auto delta = Compute();
  ASSERT_TRUE(delta.ok()) << delta.status();
  EXPECT_EQ(delta->delta.changed, Blocks({0, 1, 2, 3, 4, 5, 6, 7}));
}

TEST_F(SavedDelta, WhatLaterGrewBackIsSentWhole) {
  // e2: mappings beyond the end of a shrunk device come back when it grows.
  base_size_ = 5 * kBlock + 4096;
  ASSERT_TRUE(Save().ok());
  snapshot_ = base_;
  snapshot_size_ = 10 * kBlock;
  auto delta = Compute();
  ASSERT_TRUE(delta.ok()) << delta.status();
  EXPECT_EQ(delta->delta.changed, Blocks({5, 6, 7}));
  EXPECT_EQ(delta->delta.gone, Blocks({8, 9}));
  // And shrunk: clipped.
  snapshot_.clear();
  snapshot_size_ = 2 * kBlock + 4096;
  delta = Compute();
  ASSERT_TRUE(delta.ok()) << delta.status();
  EXPECT_EQ(delta->delta.gone.bytes(), snapshot_size_);
}

TEST_F(SavedDelta, NeedsAWitnessOfItsTimeline) {
  // b6: the metadata was set back, and nothing in it shows that.
  ASSERT_TRUE(Save().ok());
  snapshot_ = base_;
  ASSERT_TRUE(Compute().ok());
  const WitnessLookup good = witness_;
  witness_.lv_uuid = "another";
  ExpectGuard(Guard::kProvenTimeline, "expected volume witness with thin id 3");
  witness_.lv_uuid.clear();
  ExpectGuard(Guard::kProvenTimeline, "found none");
  witness_ = good;
  witness_.record.transaction_id = 6;  // made before the base
  ExpectGuard(Guard::kProvenTimeline, "G9: ");
  witness_ = good;
  witness_.record.creation_time = 4;
  ExpectGuard(Guard::kProvenTimeline, "G9: ");
  witness_ = {};  // no LVM
  ExpectGuard(Guard::kProvenTimeline, "a volume of LVM");
  witness_ = good;
  has_witness_ = false;  // LVM has it, the metadata was set back
  ExpectGuard(Guard::kProvenTimeline, "G9: ");
}

TEST_F(SavedDelta, HasTheOtherGuardsToo) {
  ASSERT_TRUE(Save().ok());
  snapshot_ = base_;
  pool_time_ = 4;
  ExpectGuard(Guard::kSameTimeline, "time of the pool");
  pool_time_ = 9;
  facts_.pool_uuid = "other";
  ExpectGuard(Guard::kSameVolume, "UUID of the pool");
  facts_.pool_uuid = "pool";
  facts_.snapshot_external_origin = true;
  ExpectGuard(Guard::kKnownContents, "external origin");
  facts_.snapshot_external_origin = false;
  record_.data_block_sectors = 256;
  ExpectGuard(Guard::kSamePool, "data block size");
  record_.data_block_sectors = 128;
  snapshot_[1].time = 9;
  ExpectGuard(Guard::kSnapshotFrozen, "latest mapping");
  snapshot_[1].time = 2;
  snapshot_time_ = 5;
  ExpectGuard(Guard::kSnapshotFrozen, "creation time");
}

TEST_F(SavedDelta, DamagedOrMissingMappingsAreNoBase) {
  snapshot_ = base_;
  for (uint64_t block = 0; block < 30; ++block) base_[block * 3] = {block, 1};
  ASSERT_TRUE(Save().ok());
  const auto refused = [&](const std::string& text) {
    const auto delta = Compute();
    ASSERT_FALSE(delta.ok());
    EXPECT_EQ(ReasonOf(delta.status()), Reason::kBaseMismatch);
    EXPECT_THAT(MessageOf(delta.status()), HasSubstr(text));
  };
  ++record_.mapped_blocks;
  refused("found 35, expected 36");
  std::filesystem::resize_file(path_, 60);
  refused("ends early");
  std::filesystem::remove(path_);
  refused("can't be opened");
}

TEST_F(SavedDelta, OfABaseThatChangedSinceItWasSentNothingIsSaved) {
  // d2: trimmed between the sending and the commit.
  ASSERT_TRUE(Save().ok());
  MetadataBuilder builder(4, 4);
  base_.erase(2);
  MemoryMetadata metadata(
      builder.Finish({{kBaseId, {base_, 7, 5, 5}}}, 5, 128));
  auto view = PoolView::Open(metadata, false);
  ASSERT_TRUE(view.ok());
  MappingsWriter writer(name_, [](auto) { return absl::OkStatus(); });
  EXPECT_THAT(MessageOf(SaveMappings(*view, record_, writer)),
              HasSubstr("not any more what was sent"));
}

TEST_F(SavedDelta, EqualsTheRuleBlockByBlock) {
  for (uint32_t seed = 0; seed < 100; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 generator(seed);
    const auto below = [&](uint32_t limit) {
      return static_cast<uint32_t>(generator() % limit);
    };
    base_.clear();
    for (uint64_t key = 0; key < 400; ++key) {
      if (below(4) != 0) base_[key] = {below(3) + key, below(5)};
    }
    base_size_ = (300 + below(200)) * kBlock;
    snapshot_size_ = (300 + below(200)) * kBlock;
    ASSERT_TRUE(Save().ok());
    snapshot_ = base_;
    for (int change = 0; change < 60; ++change) {
      const uint64_t key = below(500);
      if (below(3) == 0) {
        snapshot_.erase(key);
      } else {
        snapshot_[key] = {below(3) + key, below(9)};
      }
    }
    std::set<uint64_t> changed;
    std::set<uint64_t> gone;
    for (uint64_t key = 0; key < snapshot_size_ / kBlock; ++key) {
      const auto then = base_.find(key);
      const auto now = snapshot_.find(key);
      const bool grown =
          base_size_ < snapshot_size_ && key >= base_size_ / kBlock;
      if (now == snapshot_.end()) {
        if (grown || then != base_.end()) gone.insert(key);
      } else if (grown || then == base_.end() || then->second != now->second ||
                 now->second.time >= 5) {
        changed.insert(key);
      }
    }
    const auto delta = Compute();
    ASSERT_TRUE(delta.ok()) << delta.status();
    EXPECT_EQ(delta->delta.changed, Blocks(changed));
    EXPECT_EQ(delta->delta.gone, Blocks(gone));
  }
}

}  // namespace
}  // namespace snapsync
