// SPDX-License-Identifier: Apache-2.0
//
// The delta against a plain comparison of the maps that the trees were made of.
#include "common/thin/delta.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "common/base/error.h"
#include "tests/unit/common/thin/memory_metadata.h"
#include "tests/unit/common/thin/metadata_builder.h"

namespace snapsync {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kSectors = 128;
constexpr uint64_t kBlock = 65536;

struct Compared {
  absl::StatusOr<TreeDelta> result;
  uint64_t blocks = 0;
};

absl::StatusOr<TreeDelta> Compare(MemoryMetadata& metadata,
                                  std::optional<uint32_t> base_id, uint32_t id,
                                  const DeltaSizes& sizes = {}) {
  auto view = PoolView::Open(metadata, false);
  if (!view.ok()) return view.status();
  std::optional<ThinDevice> base;
  if (base_id) {
    auto found = view->RequireDevice(*base_id);
    if (!found.ok()) return found.status();
    base = *found;
  }
  auto snapshot = view->RequireDevice(id);
  if (!snapshot.ok()) return snapshot.status();
  return CompareDevices(*view, base, *snapshot, sizes);
}

// The rule, block by block.
Delta Expected(const MappingMap& base, const MappingMap& snapshot,
               const DeltaSizes& sizes) {
  std::set<uint64_t> keys;
  for (const auto& entry : base) keys.insert(entry.first);
  for (const auto& entry : snapshot) keys.insert(entry.first);
  uint64_t grown_from = UINT64_MAX;
  if (sizes.base && sizes.snapshot && *sizes.base < *sizes.snapshot) {
    grown_from = *sizes.base / kBlock;
    for (uint64_t key = grown_from; key * kBlock < *sizes.snapshot; ++key) {
      keys.insert(key);
    }
  }
  const uint64_t size = sizes.snapshot.value_or(UINT64_MAX);
  Delta delta;
  for (const uint64_t key : keys) {
    const uint64_t start = key * kBlock;
    if (start >= size) break;
    const Extent extent{start, std::min(kBlock, size - start)};
    const auto before = base.find(key);
    const auto now = snapshot.find(key);
    if (now == snapshot.end()) {
      delta.gone.Append(extent);
    } else if (before == base.end() || key >= grown_from ||
               before->second.data_block != now->second.data_block) {
      delta.changed.Append(extent);
    }
  }
  return delta;
}

TEST(Delta, EqualsTheComparisonOfTheMapsForTreesOfAllShapes) {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto below = [&](uint64_t limit) { return random() % limit; };
    // Up to five levels, and devices of very different heights.
    const uint64_t keys = 1 + below(seed % 7 == 0 ? 4 : 1500);
    MappingMap base;
    for (uint64_t key = 0; key < keys; ++key) {
      if (below(8) != 0) base[key * (1 + below(2))] = {below(1000), 1};
    }
    MappingMap snapshot = below(10) == 0 ? MappingMap() : base;
    const uint64_t changes = below(3) == 0 ? 0 : below(60);
    for (uint64_t change = 0; change < changes; ++change) {
      const uint64_t key = below(2 * keys + (below(9) == 0 ? 5000 : 1));
      if (below(3) == 0) {
        snapshot.erase(key);
      } else {
        snapshot[key] = {below(1000), 2};
      }
    }
    DeltaSizes sizes;
    if (below(3) != 0) sizes.snapshot = below(2 * keys + 10) * kBlock + 4096;
    if (below(3) != 0) sizes.base = below(2 * keys + 10) * kBlock + 8192;
    MetadataBuilder builder(1 + below(16), 3 + below(8));
    MemoryMetadata metadata(builder.Finish(
        {{1, {base, 0, 2, 2}}, {2, {snapshot, 0, 3, 3}}}, 3, kSectors));
    const auto compared = Compare(metadata, 1, 2, sizes);
    ASSERT_TRUE(compared.ok()) << compared.status();
    const Delta expected = Expected(base, snapshot, sizes);
    EXPECT_EQ(compared->delta.changed, expected.changed);
    EXPECT_EQ(compared->delta.gone, expected.gone);
    const auto whole = Compare(metadata, std::nullopt, 2, {sizes.snapshot, {}});
    ASSERT_TRUE(whole.ok()) << whole.status();
    EXPECT_EQ(whole->delta.changed,
              Expected({}, snapshot, {sizes.snapshot, {}}).changed);
    EXPECT_TRUE(whole->delta.gone.empty());
    EXPECT_EQ(whole->snapshot.entries, snapshot.size());
  }
}

TEST(Delta, TreesLargerThanAWindowGiveTheSame) {
  std::mt19937 random(7);
  MappingMap base;
  for (uint64_t key = 0; key < 40000; ++key) base[key] = {key, 1};
  MappingMap snapshot = base;
  for (uint64_t key = 0; key < 40000; key += 1 + random() % 3) {
    snapshot[key] = {100000 + key, 2};
  }
  // Leaves of four and nodes of three: 10000 leaves a tree, none shared.
  MetadataBuilder builder(4, 3);
  MemoryMetadata metadata(builder.Finish(
      {{1, {base, 0, 2, 2}}, {2, {snapshot, 0, 3, 3}}}, 3, kSectors));
  const auto compared = Compare(metadata, 1, 2);
  ASSERT_TRUE(compared.ok()) << compared.status();
  EXPECT_EQ(compared->delta.changed, Expected(base, snapshot, {}).changed);
}

TEST(Delta, WhatBothTreesShareIsNotRead) {
  MappingMap base;
  for (uint64_t key = 0; key < 64000; ++key) base[key] = {key, 1};
  MappingMap snapshot = base;
  snapshot[40000] = {70000, 2};
  MetadataBuilder builder(100, 30);
  MemoryMetadata metadata(builder.Finish(
      {{1, {base, 0, 2, 2}}, {2, {snapshot, 0, 3, 3}}}, 3, kSectors));
  const auto compared = Compare(metadata, 1, 2);
  ASSERT_TRUE(compared.ok()) << compared.status();
  // Two trees of height 2: to find the height three blocks each, then three.
  EXPECT_LE(compared->delta.metadata_blocks_read, 12U);
  EXPECT_FALSE(compared->base.whole);
  EXPECT_EQ(compared->base.latest_time, 1U);
  EXPECT_EQ(compared->snapshot.latest_time, 2U);
}

TEST(Delta, OfADeviceWithItselfReadsNothingAndIsEmpty) {
  MetadataBuilder builder(4, 4);
  MemoryMetadata metadata(
      builder.Finish({{1, {{{1, {5, 1}}}, 0, 2, 2}}}, 3, kSectors));
  const auto compared = Compare(metadata, 1, 1);
  ASSERT_TRUE(compared.ok()) << compared.status();
  EXPECT_EQ(compared->delta.metadata_blocks_read, 0U);
  EXPECT_TRUE(compared->delta.changed.empty());
}

TEST(Delta, ADeviceThatThePoolDoesNotHaveIsAUsageError) {
  MetadataBuilder builder(4, 4);
  MemoryMetadata metadata(builder.Finish({{1, {}}}, 3, kSectors));
  for (const auto& status :
       {Compare(metadata, 9, 1).status(), Compare(metadata, 1, 9).status()}) {
    EXPECT_EQ(ReasonOf(status), Reason::kUsage);
    EXPECT_THAT(MessageOf(status), HasSubstr("no thin device 9"));
  }
}

TEST(Delta, ATreeWithOtherEntriesThanItsDetailsSayIsDamage) {
  MetadataBuilder builder(4, 4);
  MappingMap mappings;
  for (uint64_t key = 0; key < 20; ++key) mappings[key] = {key, 1};
  MemoryMetadata metadata(
      builder.Finish({{1, {mappings, 0, 2, 2}}}, 3, kSectors));
  auto view = PoolView::Open(metadata, false);
  ASSERT_TRUE(view.ok());
  auto device = view->RequireDevice(1);
  ASSERT_TRUE(device.ok());
  EXPECT_TRUE(WalkDevice(*view, *device).ok());
  ++device->mapped_blocks;
  const auto walk = WalkDevice(*view, *device);
  EXPECT_EQ(ReasonOf(walk.status()), Reason::kIo);
  EXPECT_THAT(MessageOf(walk.status()), HasSubstr("found 20, expected 21"));
}

TEST(Delta, AMappingBeyondTheDataDeviceIsDamage) {
  MetadataBuilder builder(4, 4);
  MemoryMetadata metadata(builder.Finish(
      {{1, {{{3, {uint64_t{1} << 32, 1}}}, 0, 2, 2}}}, 3, kSectors));
  const auto compared = Compare(metadata, std::nullopt, 1);
  EXPECT_EQ(ReasonOf(compared.status()), Reason::kIo);
  EXPECT_THAT(MessageOf(compared.status()),
              HasSubstr("data block of virtual block 3"));
}

TEST(Delta, AVirtualBlockWhoseOffsetOverflowsIsDamage) {
  MetadataBuilder builder(4, 4);
  MemoryMetadata metadata(builder.Finish(
      {{1, {{{uint64_t{1} << 50, {1, 1}}}, 0, 2, 2}}}, 3, kSectors));
  const auto compared = Compare(metadata, std::nullopt, 1);
  EXPECT_EQ(ReasonOf(compared.status()), Reason::kIo);
}

TEST(Delta, ASubtreeTwiceInOneTreeIsDamage) {
  MetadataBuilder builder(4, 4);
  MappingMap mappings;
  for (uint64_t key = 0; key < 16; ++key) mappings[key] = {key, 1};
  MemoryMetadata metadata(builder.Finish(
      {{1, {mappings, 0, 2, 2}}, {2, {{{1, {1, 1}}}, 0, 2, 2}}}, 3, kSectors));
  auto view = PoolView::Open(metadata, false);
  ASSERT_TRUE(view.ok());
  const auto device = view->RequireDevice(1);
  ASSERT_TRUE(device.ok());
  // The root's second child is its first one.
  const size_t values = kNodeKeysAt + 252 * kKeySize;
  const auto child =
      LoadLittle<uint64_t>(metadata.block(device->mapping_root) + values);
  metadata.Set<uint64_t>(device->mapping_root, values + 8, child, kNodeSalt);
  EXPECT_EQ(ReasonOf(Compare(metadata, 2, 1).status()), Reason::kIo);
  EXPECT_EQ(ReasonOf(Compare(metadata, 1, 2).status()), Reason::kIo);
  EXPECT_EQ(ReasonOf(Compare(metadata, std::nullopt, 1).status()), Reason::kIo);
}

}  // namespace
}  // namespace snapsync
