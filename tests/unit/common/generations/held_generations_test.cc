// SPDX-License-Identifier: Apache-2.0
#include "common/generations/held_generations.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace snapsync {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint64_t kChunk = 65536;

LogicalVolume Snapshot(const std::string& name, uint64_t transaction,
                       std::vector<std::string> tags) {
  LogicalVolume volume;
  volume.group = "vg";
  volume.group_uuid = "group";
  volume.name = name;
  volume.uuid = "uuid of " + name;
  volume.pool_uuid = "pool";
  volume.thin_id = static_cast<uint32_t>(transaction + 10);
  volume.transaction_id = transaction;
  volume.size = 16 * kChunk;
  volume.tags = std::move(tags);
  return volume;
}

TEST(HeldGenerations, TheTagsSayWhichTheYoungestFirst) {
  const Id128 a = Id128::Random();
  const Id128 b = Id128::Random();
  const Id128 c = Id128::Random();
  VolumeGroup group;
  group.volumes = {
      Snapshot("old", 3, {"snapsync", GenerationTag(a, 2 * kChunk, 9)}),
      Snapshot("new", 7,
               {GenerationTag(b, kChunk, 1), GenerationTag(c, kChunk, 1)}),
      Snapshot("somebody's", 9, {"other"})};
  const auto held = FindHeldGenerations(group, "pool");
  ASSERT_THAT(held, SizeIs(3));
  EXPECT_EQ(held[0].generation, b);
  EXPECT_EQ(held[1].generation, c);
  EXPECT_EQ(held[1].snapshot.name, "new");
  EXPECT_EQ(held[2].generation, a);
  EXPECT_EQ(held[2].mapped_bytes, 2 * kChunk);
  EXPECT_EQ(held[2].size, 9u);
}

TEST(HeldGenerations, OtherPoolsMergesAndBadTagsDoNotCount) {
  const std::string good = GenerationTag(Id128::Random(), kChunk, 1);
  VolumeGroup group;
  for (const std::string& tag : {good.substr(0, good.size() - 8), good + "x",
                                 std::string("snapsync.generation="),
                                 std::string("snapsync.generation=12:3:4"),
                                 GenerationTag(Id128{}, 1, 1), "x" + good}) {
    group.volumes.push_back(Snapshot("bad", 1, {tag}));
  }
  group.volumes.push_back(Snapshot("elsewhere", 1, {good}));
  group.volumes.back().pool_uuid = "another";
  group.volumes.push_back(Snapshot("merging", 1, {good}));
  group.volumes.back().merging = true;
  group.volumes.push_back(Snapshot("thick", 1, {good}));
  group.volumes.back().thin_id.reset();
  EXPECT_THAT(FindHeldGenerations(group, "pool"), IsEmpty());
}

TEST(HeldGenerations, TheYoungestThatIsInCommonIsChosen) {
  const Id128 old = Id128::Random();
  const Id128 a = Id128::Random();
  const Id128 b = Id128::Random();
  VolumeGroup group;
  group.volumes = {
      Snapshot("old", 3, {GenerationTag(old, 1, 1)}),
      Snapshot("new", 7, {GenerationTag(a, 1, 1), GenerationTag(b, 1, 1)}),
      Snapshot("newest", 9, {GenerationTag(Id128::Random(), 1, 1)})};
  const auto held = FindHeldGenerations(group, "pool");
  EXPECT_EQ(ChooseCommon({old, b, a}, held), b);
  EXPECT_EQ(ChooseCommon({a, old, b}, held), a);
  EXPECT_EQ(ChooseCommon({Id128::Random(), old}, held), old);
  EXPECT_EQ(ChooseCommon({Id128::Random()}, held), std::nullopt);
  EXPECT_EQ(ChooseCommon({}, held), std::nullopt);
}

TEST(HeldGenerations, TheRecordHasWhatTheGuardsCheck) {
  HeldGeneration held{Id128::Random(), 3 * kChunk, 12 * kChunk,
                      Snapshot("s", 4, {})};
  EXPECT_FALSE(held.whole());
  const BaseRecord record = RecordOf(held, kChunk);
  EXPECT_EQ(record.lv_uuid, "uuid of s");
  EXPECT_EQ(record.device_id, 14U);
  EXPECT_EQ(record.transaction_id, 4U);
  EXPECT_EQ(record.mapped_blocks, 3U);
  EXPECT_EQ(record.data_block_sectors, 128U);
  // What the snapshot holds behind the generation is not part of it.
  EXPECT_EQ(record.device_size, 12 * kChunk);
  held.size = 20 * kChunk;
  EXPECT_TRUE(held.whole());
  EXPECT_EQ(RecordOf(held, kChunk).device_size, 16 * kChunk);
  VolumeGroup group;
  group.volumes = {held.snapshot, Snapshot("now", 6, {})};
  const DeltaRequest request = RequestDelta(group, group.volumes[1], record);
  EXPECT_EQ(request.snapshot_id, 16U);
  EXPECT_EQ(request.facts.base_lv_uuid, "uuid of s");
  EXPECT_EQ(request.facts.snapshot_lv_uuid, "uuid of now");
  // The base's thin id was given to nobody, or the snapshot is gone.
  group.volumes.erase(group.volumes.begin());
  EXPECT_EQ(RequestDelta(group, group.volumes[0], record).facts.base_lv_uuid,
            "");
}

}  // namespace
}  // namespace snapsync
