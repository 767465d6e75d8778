// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/export_header.h"

#include <string>

#include "common/base/subprocess.h"
#include "common/qcow2/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync::qcow2 {
namespace {

using ::testing::HasSubstr;

ExportHeader Example() {
  ExportHeader header;
  header.size = 10 << 20;
  header.l1_entries = 1;
  header.l1_offset = 3 << 16;
  header.refcount_table_offset = 5 << 16;
  header.refcount_table_clusters = 1;
  header.identity.replication = "nightly";
  header.identity.generation =
      *Id128::Parse("00112233445566778899aabbccddeeff");
  header.identity.number = 3;
  return header;
}

TEST(ExportHeader, IsReadBackAsItWasWritten) {
  ExportHeader header = Example();
  EXPECT_EQ(DecodeHeader(EncodeHeader(header), "f").value(), header);
  header.incomplete = true;
  header.compression_type = kCompressionZstd;
  header.geometry.cluster_bits = 21;
  header.backing_name = std::string(kMaxBackingNameBytes, 'b');
  header.identity.replication =
      std::string(Identity::kMaxReplicationBytes, 'r');
  EXPECT_EQ(DecodeHeader(EncodeHeader(header), "f").value(), header);
}

TEST(ExportHeader, WhatChangesLiesInTheFirstSector) {
  ExportHeader one = Example();
  one.backing_name = "base.qcow2";
  ExportHeader two = one;
  two.size = 1 << 30;
  two.l1_entries = 99;
  two.l1_offset = two.refcount_table_offset = 77 << 16;
  two.refcount_table_clusters = 4;
  two.incomplete = true;
  two.identity.generation = two.identity.previous = Id128::Random();
  two.identity.number = two.identity.unix_seconds = ~uint64_t{0};
  const auto first = EncodeHeader(one);
  const auto second = EncodeHeader(two);
  EXPECT_TRUE(std::equal(first.begin() + kHeaderSectorBytes, first.end(),
                         second.begin() + kHeaderSectorBytes));
}

TEST(ExportHeader, AnyChangedBitIsAChange) {
  ExportHeader header = Example();
  header.backing_name = "base.qcow2";
  std::vector<std::byte> area = EncodeHeader(header);
  for (size_t bit = 0; bit < area.size() * 8; ++bit) {
    area[bit / 8] ^= std::byte{1} << (bit % 8);
    ASSERT_THAT(DecodeHeader(area, "f"),
                FailsWith(Reason::kBaseMismatch, "run a full export"))
        << bit;
    area[bit / 8] ^= std::byte{1} << (bit % 8);
  }
  area.pop_back();
  EXPECT_THAT(DecodeHeader(area, "f"),
              FailsWith(Reason::kBaseMismatch, "no export of SnapSync"));
}

TEST(ExportHeader, OfAnUnfinishedFileMakesQemuSayWhy) {
  const TemporaryFolder folder;
  ExportHeader header = Example();
  header.incomplete = true;
  const auto area = EncodeHeader(header);
  WriteContents(folder / "f",
                {reinterpret_cast<const char*>(area.data()), area.size()});
  const auto result = RunSubprocess({"qemu-img", "info", folder / "f"});
  ASSERT_THAT(result, IsOk());
  EXPECT_NE(result->exit_status, 0);
  EXPECT_THAT(result->error_output,
              HasSubstr("Unsupported qcow2 feature(s): SnapSync: incomplete"));
}

}  // namespace
}  // namespace snapsync::qcow2
