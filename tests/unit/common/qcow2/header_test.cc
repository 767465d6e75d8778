// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/header.h"

#include <array>

#include "gtest/gtest.h"
#include "tests/testing/random.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/common/qcow2/header_bytes.h"

namespace snapsync::qcow2 {
namespace {

using ::testing::ElementsAre;

absl::StatusOr<Header> Parse(HeaderBytes& file) {
  return ParseHeader(file.bytes(), file.bytes().size(), "disk.qcow2");
}

void ExpectRefused(HeaderBytes file, Reason reason, const std::string& text) {
  const auto header = Parse(file);
  EXPECT_THAT(header, FailsWith(reason, text));
  EXPECT_THAT(header, FailsWith(reason, "disk.qcow2: "));
}

// A change of one field, and what the error says then.
template <typename T>
void ExpectDamaged(size_t at, T value, const std::string& text) {
  SCOPED_TRACE("offset " + std::to_string(at) + ", value " +
               std::to_string(value));
  ExpectRefused(HeaderBytes().Set(at, value), Reason::kIo, text);
}

TEST(Header, OfVersion3IsReadFieldByField) {
  HeaderBytes file;
  file.Set<uint64_t>(kIncompatibleAt, kIncompatibleDirty |
                                          kIncompatibleCompressionType |
                                          kIncompatibleExtendedL2)
      .Set<uint64_t>(kCompatibleAt, 0x8001)
      .Set<uint64_t>(kAutoclearAt, uint64_t{1} << 40U)
      .Set<uint32_t>(kRefcountOrderAt, 6)
      .Set<uint32_t>(kL1SizeAt, 5)
      .Set<uint32_t>(kSnapshotCountAt, 2)
      .Set<uint64_t>(kSnapshotsOffsetAt, 4 * HeaderBytes::kCluster)
      .Set<uint64_t>(kSizeAt, (uint64_t{1} << 30U) + 700);
  file.bytes()[kCompressionTypeAt] = std::byte{kCompressionZstd};
  const auto header = Parse(file);
  ASSERT_THAT(header, IsOk());
  EXPECT_EQ(header->version, 3U);
  EXPECT_EQ(header->cluster_size(), 65536U);
  EXPECT_EQ(header->size, (uint64_t{1} << 30U) + 700);
  EXPECT_EQ(header->disk_size(), (uint64_t{1} << 30U) + 512);
  EXPECT_EQ(header->l1_offset, 3 * HeaderBytes::kCluster);
  EXPECT_EQ(header->l1_entries, 5U);
  EXPECT_EQ(header->l2_entries(), 4096U);
  EXPECT_EQ(header->needed_l1_entries(), 5U);
  EXPECT_EQ(header->refcount_table_offset, HeaderBytes::kCluster);
  EXPECT_EQ(header->refcount_table_clusters, 1U);
  EXPECT_EQ(header->refcount_order, 6U);
  EXPECT_EQ(header->snapshots, 2U);
  EXPECT_EQ(header->snapshots_offset, 4 * HeaderBytes::kCluster);
  EXPECT_EQ(header->compatible_features, 0x8001U);
  EXPECT_EQ(header->autoclear_features, uint64_t{1} << 40U);
  EXPECT_EQ(header->header_length, kHeaderBytes);
  EXPECT_EQ(header->compression_type, kCompressionZstd);
  EXPECT_TRUE(header->dirty());
  EXPECT_FALSE(header->corrupt());
  EXPECT_FALSE(header->has_data_file());
  EXPECT_TRUE(header->extended_l2());
  EXPECT_EQ(header->backing_name, "");
  EXPECT_EQ(header->identity, std::nullopt);
  EXPECT_FALSE(header->untouched);
}

TEST(Header, OfVersion2HasNoFeatures) {
  HeaderBytes file;
  file.Set<uint32_t>(kVersionAt, 2);
  // Where version 3 has features there are extensions.
  file.bytes().assign(file.bytes().begin(), file.bytes().end());
  std::fill_n(file.bytes().begin() + kVersion2HeaderBytes, 40, std::byte{0});
  file.Set<uint32_t>(kVersion2HeaderBytes, kExtensionBackingFormat)
      .Set<uint32_t>(kVersion2HeaderBytes + 4, 3)
      .SetText(kVersion2HeaderBytes + 8, "raw")
      .Set<uint64_t>(kBackingOffsetAt, 104)
      .Set<uint32_t>(kBackingSizeAt, 8)
      .SetText(104, "base.raw");
  const auto header = Parse(file);
  ASSERT_THAT(header, IsOk());
  EXPECT_EQ(header->version, 2U);
  EXPECT_EQ(header->incompatible_features, 0U);
  EXPECT_EQ(header->refcount_order, 4U);
  EXPECT_EQ(header->header_length, kVersion2HeaderBytes);
  EXPECT_EQ(header->backing_format, "raw");
  EXPECT_EQ(header->backing_name, "base.raw");
}

TEST(Header, OfEarlierVersion3Is104BytesLong) {
  HeaderBytes file;
  file.Set<uint32_t>(kHeaderLengthAt, 104);
  EXPECT_THAT(Parse(file), IsOk());
}

TEST(Header, OfAnotherFormatIsRefused) {
  ExpectRefused(HeaderBytes().Set<uint32_t>(kMagicAt, 0x4b444d56),
                Reason::kTargetUnsuitable, "not a QCOW2 image");
  ExpectRefused(HeaderBytes().Resize(0), Reason::kTargetUnsuitable,
                "not a QCOW2 image");
  for (const uint32_t version : {0U, 1U, 4U, UINT32_MAX}) {
    ExpectRefused(HeaderBytes().Set(kVersionAt, version),
                  Reason::kTargetUnsuitable,
                  "version " + std::to_string(version));
  }
}

TEST(Header, ThatEndsTooEarlyIsTruncated) {
  for (const size_t size : {8U, 71U, 72U, 103U, 104U, 111U}) {
    ExpectRefused(HeaderBytes().Resize(size), Reason::kIo, "truncated");
  }
}

TEST(Header, FieldsBeyondTheFormatsLimitsAreDamage) {
  for (const uint32_t bits : {0U, 8U, 22U, 64U, UINT32_MAX}) {
    ExpectDamaged(kClusterBitsAt, bits, "cluster_bits (offset 20)");
  }
  for (const uint32_t length :
       {0U, 96U, 105U, 108U, 65544U, 0x7fffffffU, 0xfffffff8U, UINT32_MAX}) {
    ExpectDamaged(kHeaderLengthAt, length, "header_length (offset 100)");
  }
  ExpectDamaged(kRefcountOrderAt, 7U, "refcount_order");
  ExpectDamaged(kSizeAt, uint64_t{1} << 63U, "size (offset 24)");
  ExpectDamaged(kSizeAt, UINT64_MAX, "size (offset 24)");
  for (const uint32_t entries : {0U, 1U, 4194305U, 0x7fffffffU, UINT32_MAX}) {
    ExpectDamaged(kL1SizeAt, entries, "l1_size (offset 36)");
  }
  for (const uint32_t clusters : {0U, 129U, 0x7fffffffU, UINT32_MAX}) {
    ExpectDamaged(kRefcountTableClustersAt, clusters,
                  "refcount_table_clusters");
  }
  ExpectDamaged(kSnapshotCountAt, 65537U, "nb_snapshots");
  // Even where there are none.
  for (const uint64_t offset : {uint64_t{512}, uint64_t{1} << 63U}) {
    ExpectDamaged(kSnapshotsOffsetAt, offset, "snapshots_offset");
  }
}

TEST(Header, TablesLieAlignedWithinTheFile) {
  for (const size_t at : {kL1OffsetAt, kRefcountTableOffsetAt}) {
    for (const uint64_t offset :
         {uint64_t{0}, uint64_t{512}, HeaderBytes::kCluster + 1,
          HeaderBytes::kFileBytes, uint64_t{1} << 63U,
          UINT64_MAX - HeaderBytes::kCluster + 1, UINT64_MAX}) {
      ExpectDamaged(at, offset, "_offset (offset " + std::to_string(at));
    }
  }
  HeaderBytes snapshots;
  snapshots.Set<uint32_t>(kSnapshotCountAt, 1);
  ExpectRefused(snapshots, Reason::kIo, "snapshots_offset");
  snapshots.Set<uint64_t>(kSnapshotsOffsetAt, HeaderBytes::kFileBytes);
  ExpectRefused(snapshots, Reason::kIo, "snapshots_offset");
}

TEST(Header, OfTheL1TableOnlyWhatIsNeededIsInTheFile) {
  // As `qemu-img create` leaves it: the file ends after the last entry.
  HeaderBytes file;
  file.Set<uint32_t>(kL1SizeAt, 100).Resize(3 * HeaderBytes::kCluster + 16);
  EXPECT_THAT(Parse(file), IsOk());
  ExpectRefused(file.Resize(3 * HeaderBytes::kCluster + 15), Reason::kIo,
                "l1_table_offset");
}

TEST(Header, AnEmptyDiskNeedsNoL1Table) {
  HeaderBytes file;
  file.Set<uint64_t>(kSizeAt, 511)
      .Set<uint32_t>(kL1SizeAt, 0)
      .Set<uint64_t>(kL1OffsetAt, 0);
  const auto header = Parse(file);
  ASSERT_THAT(header, IsOk());
  EXPECT_EQ(header->disk_size(), 0U);
  ExpectRefused(file.Set<uint64_t>(kL1OffsetAt, 99), Reason::kIo,
                "l1_table_offset");
}

TEST(Header, AHugeDiskNeedsNoMoreThanTheLargestL1Table) {
  HeaderBytes file;
  file.Set<uint32_t>(kClusterBitsAt, 21)
      .Set<uint64_t>(kSizeAt, uint64_t{1} << 61U)
      .Set<uint32_t>(kL1SizeAt, uint32_t{1} << 22U)
      .Set<uint64_t>(kRefcountTableOffsetAt, 2 << 20)
      .Set<uint64_t>(kL1OffsetAt, 4 << 20);
  const auto start = std::span(file.bytes()).first(HeaderBytes::kFileBytes);
  EXPECT_THAT(ParseHeader(start, uint64_t{64} << 20U, "disk.qcow2"), IsOk());
  file.Set<uint64_t>(kSizeAt, (uint64_t{1} << 61U) + 512);
  EXPECT_THAT(ParseHeader(start, uint64_t{64} << 20U, "disk.qcow2"),
              FailsWith(Reason::kIo, "l1_size"));
}

TEST(Header, UnknownIncompatibleFeaturesAreNamed) {
  HeaderBytes file;
  file.Set<uint64_t>(kIncompatibleAt, kIncompatibleIncomplete | 1U << 5U);
  std::array<std::byte, kFeatureNameBytes> entry{};
  entry[1] = std::byte{kIncompleteBit};
  std::memcpy(entry.data() + 2, kIncompleteName, sizeof kIncompleteName);
  file.Extend(kExtensionFeatureNames, entry);
  ExpectRefused(file, Reason::kTargetUnsuitable, "bit 5, SnapSync: incomplete");
}

TEST(Header, TextsOfTheFileArePrintable) {
  HeaderBytes file;
  std::array<std::byte, 2 * kFeatureNameBytes + 5> entries{};
  entries[2] = std::byte{0x1b};
  entries[3] = std::byte{'['};
  entries[kFeatureNameBytes] = std::byte{2};
  entries[kFeatureNameBytes + 1] = std::byte{9};
  std::fill_n(entries.begin() + kFeatureNameBytes + 2, 46, std::byte{'x'});
  file.Extend(kExtensionFeatureNames, entries);
  const auto header = Parse(file);
  ASSERT_THAT(header, IsOk());
  EXPECT_THAT(header->feature_names,
              ElementsAre(FeatureName{0, 0, "\\x1b["},
                          FeatureName{2, 9, std::string(46, 'x')}));
  EXPECT_EQ(Printable("abc", 2), "ab...");
}

TEST(Header, CompressionTypeAndItsFeatureBitGoTogether) {
  HeaderBytes file;
  file.bytes()[kCompressionTypeAt] = std::byte{1};
  ExpectRefused(file, Reason::kIo, "compression_type");
  file.bytes()[kCompressionTypeAt] = std::byte{0};
  file.Set<uint64_t>(kIncompatibleAt, kIncompatibleCompressionType);
  ExpectRefused(file, Reason::kIo, "compression_type");
  file.bytes()[kCompressionTypeAt] = std::byte{2};
  ExpectRefused(file, Reason::kTargetUnsuitable, "compression type 2");
  // Without the field it is 0.
  file.Set<uint32_t>(kHeaderLengthAt, 104);
  ExpectRefused(file, Reason::kIo, "compression_type");
}

TEST(Header, ExtendedL2NeedsClustersOf16KiB) {
  HeaderBytes file;
  file.Set<uint64_t>(kIncompatibleAt, kIncompatibleExtendedL2)
      .Set<uint32_t>(kClusterBitsAt, 13);
  ExpectRefused(file, Reason::kIo, "14 at least");
}

TEST(Header, EncryptionIsRefusedByName) {
  ExpectRefused(HeaderBytes().Set<uint32_t>(kCryptMethodAt, 1),
                Reason::kTargetUnsuitable, "method AES");
  ExpectRefused(HeaderBytes().Set<uint32_t>(kCryptMethodAt, 2),
                Reason::kTargetUnsuitable, "method LUKS");
  ExpectRefused(HeaderBytes().Set<uint32_t>(kCryptMethodAt, 77),
                Reason::kTargetUnsuitable, "method 77");
}

TEST(Header, TheBackingNameLiesInTheFirstCluster) {
  HeaderBytes file;
  file.Set<uint64_t>(kBackingOffsetAt, HeaderBytes::kCluster - 4)
      .Set<uint32_t>(kBackingSizeAt, 4)
      .SetText(HeaderBytes::kCluster - 4, "base");
  auto header = Parse(file);
  ASSERT_THAT(header, IsOk());
  EXPECT_EQ(header->backing_name, "base");

  for (const uint32_t length : {0U, 5U, 1024U, UINT32_MAX}) {
    file.Set(kBackingSizeAt, length);
    ExpectRefused(file, Reason::kIo, "backing_file_size");
  }
  for (const uint64_t offset :
       {uint64_t{8}, uint64_t{111}, HeaderBytes::kCluster + 1, UINT64_MAX}) {
    file.Set(kBackingOffsetAt, offset);
    ExpectRefused(file, Reason::kIo, "backing_file_offset");
  }
}

TEST(Header, ABackingNameWithAZeroByteIsRefused) {
  HeaderBytes file;
  file.Set<uint64_t>(kBackingOffsetAt, 200)
      .Set<uint32_t>(kBackingSizeAt, 4)
      .SetText(200, std::string_view("a\0bc", 4));
  ExpectRefused(file, Reason::kIo, "zero byte");
}

TEST(Header, ExtensionsEndBeforeTheBackingName) {
  HeaderBytes file;
  file.Extend(kExtensionBackingFormat, "raw")
      .Set<uint64_t>(kBackingOffsetAt, file.next_extension())
      .Set<uint32_t>(kBackingSizeAt, 8)
      .SetText(file.next_extension(), "\x01\x02\x03\x04\x7f\x05\x06\x07");
  const auto header = Parse(file);
  ASSERT_THAT(header, IsOk());
  EXPECT_EQ(header->backing_format, "raw");
}

TEST(Header, ExtensionsLongerThanTheirAreaAreDamage) {
  for (const uint32_t type :
       {kExtensionEnd, kExtensionBackingFormat, kExtensionFeatureNames,
        kExtensionLuks, uint32_t{0x12345678}}) {
    for (const uint32_t length :
         {0x7fffffffU, 0xfffffff8U, UINT32_MAX,
          static_cast<uint32_t>(HeaderBytes::kCluster - 112 - 7)}) {
      HeaderBytes file;
      file.Extend(type, {}, length);
      ExpectRefused(file, Reason::kIo, "at offset 112 has");
    }
  }
  ExpectRefused(HeaderBytes().Extend(kExtensionEnd, "12345678"), Reason::kIo,
                "yet has data");
}

TEST(Header, AFloodOfExtensionsOrARepeatIsDamage) {
  HeaderBytes repeat;
  repeat.Extend(0x1234, "").Extend(0x1234, "");
  ExpectRefused(repeat, Reason::kIo, "is there twice");
  HeaderBytes flood;
  for (uint32_t type = 1; type <= 64; ++type) flood.Extend(type, "");
  EXPECT_THAT(Parse(flood), IsOk());
  ExpectRefused(flood.Extend(65, ""), Reason::kIo, "one too many");
}

TEST(Header, NamesInExtensionsAreBounded) {
  ExpectRefused(HeaderBytes().Extend(kExtensionBackingFormat, ""), Reason::kIo,
                "holds a name of 0 bytes");
  ExpectRefused(
      HeaderBytes().Extend(kExtensionBackingFormat, "0123456789abcdef"),
      Reason::kIo, "holds a name of 16 bytes");
  ExpectRefused(
      HeaderBytes().Extend(kExtensionDataFile, std::string(1024, 'x')),
      Reason::kIo, "holds a name of 1024 bytes");
  ExpectRefused(
      HeaderBytes().Extend(kExtensionDataFile, std::string_view("a\0b", 3)),
      Reason::kIo, "zero byte");
}

TEST(Header, AnExternalDataFileHasANameAndItsBit) {
  HeaderBytes file;
  file.Set<uint64_t>(kIncompatibleAt, kIncompatibleDataFile);
  ExpectRefused(file, Reason::kIo, "no name of it");
  file.Set<uint64_t>(kAutoclearAt, kAutoclearRawDataFile)
      .Extend(kExtensionDataFile, "disk.raw");
  auto header = Parse(file);
  ASSERT_THAT(header, IsOk());
  EXPECT_EQ(header->data_file_name, "disk.raw");
  EXPECT_TRUE(header->has_data_file());

  file.Set<uint64_t>(kIncompatibleAt, 0);
  ExpectRefused(file, Reason::kIo, "without an external data file");
  file.Set<uint64_t>(kAutoclearAt, 0);
  header = Parse(file);
  ASSERT_THAT(header, IsOk());
  EXPECT_EQ(header->data_file_name, "");
}

TEST(Header, BitmapsAreInForceWithTheirBitOnly) {
  std::array<std::byte, 24> data{};
  StoreBig<uint32_t>(data.data(), 3);
  StoreBig<uint64_t>(data.data() + 8, 96);
  StoreBig<uint64_t>(data.data() + 16, 5 * HeaderBytes::kCluster);
  HeaderBytes file;
  file.Extend(kExtensionBitmaps, data);
  auto header = Parse(file);
  ASSERT_THAT(header, IsOk());
  EXPECT_FALSE(header->bitmaps.has_value());

  file.Set<uint64_t>(kAutoclearAt, kAutoclearBitmaps);
  header = Parse(file);
  ASSERT_THAT(header, IsOk());
  ASSERT_TRUE(header->bitmaps.has_value());
  EXPECT_EQ(header->bitmaps->count, 3U);
  EXPECT_EQ(header->bitmaps->bytes, 96U);
  EXPECT_EQ(header->bitmaps->offset, 5 * HeaderBytes::kCluster);

  const auto refused = [&](size_t at, auto value, const std::string& text) {
    HeaderBytes changed = file;
    changed.Set(kHeaderBytes + 8 + at, value);
    ExpectRefused(changed, Reason::kIo, text);
  };
  refused(0, uint32_t{0}, "tells of 0 bitmaps");
  refused(0, uint32_t{65536}, "tells of 65536 bitmaps");
  refused(4, uint32_t{1}, "reserved");
  refused(8, uint64_t{1} << 40U, "has a directory");
  refused(8, HeaderBytes::kFileBytes, "truncated");
  refused(16, uint64_t{512}, "has a directory");
  refused(16, HeaderBytes::kFileBytes, "truncated");
  ExpectRefused(HeaderBytes().Extend(kExtensionBitmaps, "short"), Reason::kIo,
                "not 24");
}

TEST(Header, AnExportIsKnownAndKnowsWhetherItWasTouched) {
  Identity identity;
  identity.replication = "nightly";
  identity.number = 7;
  HeaderBytes file;
  file.Set<uint64_t>(kAutoclearAt, kAutoclearUntouched);
  const size_t data_at = file.next_extension() + 8;
  file.Extend(kExtensionIdentity, EncodeIdentity(identity));
  SealIdentity(std::span(file.bytes()).first<512>(), data_at);
  auto header = Parse(file);
  ASSERT_THAT(header, IsOk());
  EXPECT_EQ(header->identity, identity);
  EXPECT_EQ(header->identity_data_at, data_at);
  EXPECT_TRUE(header->untouched);

  // As QEMU leaves it when it opens the image for writing.
  file.Set<uint64_t>(kAutoclearAt, 0);
  header = Parse(file);
  ASSERT_THAT(header, IsOk());
  EXPECT_EQ(header->identity, identity);
  EXPECT_FALSE(header->untouched);
  SealIdentity(std::span(file.bytes()).first<512>(), data_at);
  header = Parse(file);
  ASSERT_THAT(header, IsOk());
  EXPECT_FALSE(header->untouched);
}

TEST(Header, WhateverBytesAreAcceptedAreWithinTheFile) {
  Random random(1);
  HeaderBytes file;
  file.Extend(kExtensionBackingFormat, "raw");
  const std::vector<std::byte> good(file.bytes().begin(),
                                    file.bytes().begin() + 512);
  int accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    std::copy(good.begin(), good.end(), file.bytes().begin());
    for (uint64_t changes = random.Between(1, 4); changes > 0; --changes) {
      file.bytes()[8 + random.Below(136)] =
          static_cast<std::byte>(random.Next());
    }
    const auto header = Parse(file);
    if (!header.ok()) continue;
    ++accepted;
    EXPECT_LE(header->l1_offset + header->needed_l1_entries() * 8,
              HeaderBytes::kFileBytes);
    EXPECT_LE(header->refcount_table_offset +
                  header->refcount_table_clusters * header->cluster_size(),
              HeaderBytes::kFileBytes);
  }
  EXPECT_GT(accepted, 100);
}

}  // namespace
}  // namespace snapsync::qcow2
