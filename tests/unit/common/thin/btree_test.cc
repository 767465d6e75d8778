// SPDX-License-Identifier: Apache-2.0
//
// Each check of a node and of the superblock: damage one field, make the
// checksum right again, and see the error name it.
#include "common/thin/btree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/error.h"
#include "common/thin/mappings.h"
#include "tests/unit/common/thin/memory_metadata.h"
#include "tests/unit/common/thin/metadata_builder.h"

namespace snapsync {
namespace {

using ::testing::HasSubstr;

constexpr size_t kValuesAt = kNodeKeysAt + 252 * kKeySize;

// A pool with one device: leaves of four keys under one root.
class DamagedNode : public ::testing::Test {
 protected:
  DamagedNode() {
    MappingMap mappings;
    for (uint64_t key = 0; key < 20; ++key) mappings[key] = {key, 1};
    MetadataBuilder builder(4, 20);
    root_ = builder.AddTree(mappings);
    metadata_ = std::make_unique<MemoryMetadata>(
        builder.Finish({{1, {mappings, 0, 2, 2}}}, 3, 128));
    leaf_ = LoadLittle<uint64_t>(metadata_->block(root_) + kValuesAt + 8);
  }

  // The error of looking up key 5, which lies in the second leaf.
  void ExpectDamage(uint64_t block, const std::string& field,
                    const std::string& found) {
    NodeReader nodes(*metadata_, metadata_->block_count());
    const auto value = nodes.Find(root_, 5, kMappingValueSize);
    ASSERT_FALSE(value.ok());
    EXPECT_EQ(ReasonOf(value.status()), Reason::kIo);
    EXPECT_THAT(
        MessageOf(value.status()),
        HasSubstr("memory: metadata block " + std::to_string(block) + ": "));
    EXPECT_THAT(MessageOf(value.status()), HasSubstr(field + ": found"));
    EXPECT_THAT(MessageOf(value.status()), HasSubstr("found " + found + ","));
  }

  template <typename T>
  void Set(uint64_t block, size_t at, T value) {
    metadata_->Set<T>(block, at, value, kNodeSalt);
  }

  uint64_t root_ = 0;
  uint64_t leaf_ = 0;
  std::unique_ptr<MemoryMetadata> metadata_;
};

TEST_F(DamagedNode, NoneIsReadAsItIs) {
  NodeReader nodes(*metadata_, metadata_->block_count());
  const auto value = nodes.Find(root_, 5, kMappingValueSize);
  ASSERT_TRUE(value.ok()) << value.status();
  ASSERT_TRUE(value->has_value());
  EXPECT_EQ(Mapping::Unpack(LoadLittle<uint64_t>((*value)->data())),
            (Mapping{5, 1}));
  EXPECT_EQ(nodes.blocks_read(), 2U);
  const auto absent = nodes.Find(root_, 77, kMappingValueSize);
  ASSERT_TRUE(absent.ok());
  EXPECT_FALSE(absent->has_value());
}

TEST_F(DamagedNode, AWrongChecksumIsNamed) {
  metadata_->block(leaf_)[3000] ^= std::byte{1};
  ExpectDamage(leaf_, "node checksum",
               std::to_string(LoadLittle<uint32_t>(metadata_->block(leaf_))));
}

TEST_F(DamagedNode, ABlockOfAnotherPlaceIsNamed) {
  Set<uint64_t>(leaf_, kBlockNumberAt, 1000);
  ExpectDamage(leaf_, "node block number", "1000");
}

TEST_F(DamagedNode, AKindThatDoesNotExistIsNamed) {
  Set<uint32_t>(leaf_, kNodeFlagsAt, 3);
  ExpectDamage(leaf_, "node flags", "3");
}

TEST_F(DamagedNode, ValuesOfAnotherSizeAreNamed) {
  Set<uint32_t>(leaf_, kNodeValueSizeAt, 24);
  ExpectDamage(leaf_, "node value_size", "24");
}

TEST_F(DamagedNode, MoreRoomThanABlockHasIsNamed) {
  Set<uint32_t>(leaf_, kNodeMaxEntriesAt, 255);
  ExpectDamage(leaf_, "node max_entries", "255");
  Set<uint32_t>(leaf_, kNodeMaxEntriesAt, UINT32_MAX);
  ExpectDamage(leaf_, "node max_entries", "4294967295");
}

TEST_F(DamagedNode, MoreEntriesThanRoomAreNamed) {
  Set<uint32_t>(leaf_, kNodeEntriesAt, 253);
  ExpectDamage(leaf_, "node nr_entries", "253");
}

TEST_F(DamagedNode, AnInternalNodeWithoutChildrenIsNamed) {
  Set<uint32_t>(root_, kNodeEntriesAt, 0);
  ExpectDamage(root_, "node nr_entries", "0");
}

TEST_F(DamagedNode, KeysOutOfOrderAreNamed) {
  Set<uint64_t>(leaf_, kNodeKeysAt + 8, 4);
  ExpectDamage(leaf_, "node key 1", "4");
}

TEST_F(DamagedNode, KeysOutsideTheParentsRangeAreNamed) {
  Set<uint64_t>(leaf_, kNodeKeysAt, 3);
  ExpectDamage(leaf_, "node key 0", "3");
  Set<uint64_t>(leaf_, kNodeKeysAt, 4);
  Set<uint64_t>(leaf_, kNodeKeysAt + 24, 8);
  ExpectDamage(leaf_, "node key 3", "8");
}

TEST_F(DamagedNode, AChildBeyondTheMetadataIsNamed) {
  for (const uint64_t child : {uint64_t{0}, metadata_->block_count()}) {
    Set<uint64_t>(root_, kValuesAt + 8, child);
    ExpectDamage(root_, "node child 1", std::to_string(child));
  }
}

TEST_F(DamagedNode, ACycleEnds) {
  Set<uint64_t>(root_, kNodeKeysAt, 0);
  Set<uint32_t>(root_, kNodeEntriesAt, 1);
  Set<uint64_t>(root_, kValuesAt, root_);
  ExpectDamage(root_, "tree height", "more than 12");
}

struct Field {
  const char* name;
  size_t at;
  uint32_t value;
};

void PrintTo(const Field& field, std::ostream* out) { *out << field.name; }

class DamagedSuperblock : public ::testing::TestWithParam<Field> {};

TEST_P(DamagedSuperblock, IsRefusedWithTheFieldsName) {
  MetadataBuilder builder(4, 4);
  MemoryMetadata metadata(builder.Finish({{1, {}}}, 3, 128));
  ASSERT_TRUE(PoolView::Open(metadata, false).ok());
  metadata.Set<uint32_t>(0, GetParam().at, GetParam().value, kSuperblockSalt);
  const auto view = PoolView::Open(metadata, false);
  ASSERT_FALSE(view.ok());
  EXPECT_EQ(ReasonOf(view.status()), Reason::kIo);
  EXPECT_THAT(
      MessageOf(view.status()),
      HasSubstr(std::string("metadata block 0: superblock ") + GetParam().name +
                ": found " + std::to_string(GetParam().value)));
}

INSTANTIATE_TEST_SUITE_P(
    Fields, DamagedSuperblock,
    ::testing::Values(Field{"magic", kSuperblockMagicAt, 7},
                      Field{"block number", kBlockNumberAt, 7},
                      Field{"version", kSuperblockVersionAt, 3},
                      Field{"incompatible features", kIncompatibleFlagsAt, 1},
                      Field{"metadata block size", kMetadataBlockSizeAt, 16},
                      Field{"data block size", kDataBlockSizeAt, 100},
                      Field{"data block size", kDataBlockSizeAt, 0},
                      Field{"data block size", kDataBlockSizeAt, 1U << 31},
                      Field{"metadata blocks", kMetadataSpaceMapBlocksAt, 0},
                      Field{"metadata blocks", kMetadataSpaceMapBlocksAt,
                            1U << 31},
                      Field{"data mapping root", kDataMappingRootAt, 0},
                      Field{"data mapping root", kDataMappingRootAt, 999},
                      Field{"device details root", kDeviceDetailsRootAt, 999}));

TEST(Superblock, AWrongChecksumIsNamed) {
  MetadataBuilder builder(4, 4);
  MemoryMetadata metadata(builder.Finish({{1, {}}}, 3, 128));
  metadata.block(0)[4095] ^= std::byte{1};
  EXPECT_THAT(MessageOf(PoolView::Open(metadata, false).status()),
              HasSubstr("superblock checksum: found"));
}

TEST(Superblock, AHeldRootOutsideTheMetadataIsNamed) {
  MetadataBuilder builder(4, 4);
  MemoryMetadata metadata(builder.Finish({{1, {}}}, 3, 128));
  metadata.Set<uint64_t>(0, kSuperblockHeldRootAt, 999, kSuperblockSalt);
  EXPECT_THAT(MessageOf(PoolView::Open(metadata, true).status()),
              HasSubstr("superblock held root: found 999"));
}

TEST(PoolView, ADeviceThatOnlyOneTreeKnowsIsDamage) {
  MetadataBuilder builder(4, 4);
  MemoryMetadata metadata(builder.Finish({{1, {}}}, 3, 128));
  const auto details =
      LoadLittle<uint64_t>(metadata.block(0) + kDeviceDetailsRootAt);
  metadata.Set<uint32_t>(details, kNodeEntriesAt, 0, kNodeSalt);
  auto view = PoolView::Open(metadata, false);
  ASSERT_TRUE(view.ok());
  const auto device = view->FindDevice(1);
  EXPECT_EQ(ReasonOf(device.status()), Reason::kIo);
  EXPECT_THAT(MessageOf(device.status()), HasSubstr("without details"));
}

TEST(PoolView, AMetadataThatChangesUnderAnUnheldViewIsBusy) {
  MetadataBuilder builder(4, 4);
  MemoryMetadata metadata(builder.Finish({{1, {}}}, 3, 128));
  auto view = PoolView::OpenUnheld(metadata);
  ASSERT_TRUE(view.ok());
  EXPECT_TRUE(view->FindDevice(1).ok());
  metadata.Set<uint32_t>(0, kSuperblockTimeAt, 4, kSuperblockSalt);
  EXPECT_EQ(ReasonOf(view->FindDevice(1).status()), Reason::kBusy);
}

}  // namespace
}  // namespace snapsync
