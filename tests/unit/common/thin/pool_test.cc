// SPDX-License-Identifier: Apache-2.0
//
// What can be told of pools without a pool: words of the kernel and of LVM, and
// metadata in files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "common/base/aligned_buffer.h"
#include "common/base/error.h"
#include "common/thin/format.h"
#include "common/thin/metadata_device.h"
#include "common/thin/metadata_snapshot.h"
#include "common/thin/pool_control.h"
#include "common/thin/pool_status.h"

namespace snapsync {
namespace {

using ::testing::HasSubstr;

TEST(PoolStatus, OfAWritablePool) {
  const auto status = ParsePoolStatus(
      "5 172/1024 1280/6400 - rw no_discard_passdown queue_if_no_space - 1024");
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(status->transaction_id, 5U);
  EXPECT_EQ(status->used_metadata_blocks, 172U);
  EXPECT_EQ(status->total_data_blocks, 6400U);
  EXPECT_EQ(status->held_root, std::nullopt);
  EXPECT_EQ(status->mode, "rw");
  EXPECT_FALSE(status->needs_check);
  EXPECT_FALSE(status->failed);
  EXPECT_EQ(status->WhyReadOnly(), std::nullopt);
}

TEST(PoolStatus, OfAPoolThatIsFullAndWhoseMetadataAreWritten) {
  const auto status = ParsePoolStatus(
      "5 172/1024 6400/6400 - out_of_data_space no_discard_passdown "
      "queue_if_no_space - 1024");
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(status->mode, "out_of_data_space");
  EXPECT_EQ(status->WhyReadOnly(), std::nullopt);
}

TEST(PoolStatus, OfAReadOnlyPoolWithAMetadataSnapshotThatNeedsACheck) {
  const auto status = ParsePoolStatus(
      "5 172/1024 1280/6400 39 ro discard_passdown queue_if_no_space "
      "needs_check 1024");
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(status->held_root, 39U);
  EXPECT_EQ(status->mode, "ro");
  EXPECT_TRUE(status->needs_check);
  EXPECT_EQ(status->WhyReadOnly(), "needs_check");
}

TEST(PoolStatus, OfAFailedPool) {
  for (const char* line : {"Fail", "Error"}) {
    const auto status = ParsePoolStatus(line);
    ASSERT_TRUE(status.ok());
    EXPECT_TRUE(status->failed);
    EXPECT_EQ(status->WhyReadOnly(), "a failed pool");
  }
}

TEST(PoolStatus, WordsThatNoPoolGivesAreAnError) {
  for (const char* line :
       {"", "1", "a 1/2 3/4 - rw", "1 1-2 3/4 - rw", "1 1/2 3 - rw",
        "1 1/2 3/4 x rw", "1 1/2/3 3/4 - rw"}) {
    EXPECT_EQ(ReasonOf(ParsePoolStatus(line).status()), Reason::kIo) << line;
  }
}

TEST(LvmNames, UuidsOfADeviceMapperUuid) {
  const std::string vg(32, 'v');
  const std::string lv(32, 'l');
  const auto plain = ParseLvmUuid("LVM-" + vg + lv);
  ASSERT_TRUE(plain.has_value());
  EXPECT_EQ(plain->vg, vg);
  EXPECT_EQ(plain->lv, lv);
  const auto pool = ParseLvmUuid("LVM-" + vg + lv + "-tpool");
  ASSERT_TRUE(pool.has_value());
  EXPECT_EQ(pool->lv, lv);
}

TEST(LvmNames, OtherUuidsHaveNone) {
  EXPECT_FALSE(ParseLvmUuid("").has_value());
  EXPECT_FALSE(ParseLvmUuid("LVM-short").has_value());
  EXPECT_FALSE(ParseLvmUuid("CRYPT-" + std::string(64, 'x')).has_value());
  EXPECT_FALSE(ParseLvmUuid("LVM-" + std::string(70, 'x')).has_value());
}

TEST(LvmNames, AUuidIsPrintedAsLvmDoes) {
  EXPECT_EQ(FormatLvmUuid("abcdefGHIJklmnOPQRstuvWXYZ012345"),
            "abcdef-GHIJ-klmn-OPQR-stuv-WXYZ-012345");
  EXPECT_EQ(FormatLvmUuid("short"), "short");
}

TEST(LvmNames, AHyphenIsDoubledInAMapperName) {
  EXPECT_EQ(MapperName("vg-a", "pool-tdata"), "vg--a-pool--tdata");
}

class MetadataFile : public ::testing::Test {
 protected:
  MetadataFile()
      : folder_(std::filesystem::temp_directory_path() /
                ("snapsync-thin-" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(folder_);
  }
  ~MetadataFile() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& contents) {
    const std::string path = folder_ / "file";
    std::ofstream(path, std::ios::binary) << contents;
    return path;
  }

  const std::filesystem::path folder_;
};

TEST_F(MetadataFile, ThatIsMissingIsAnErrorWithItsPath) {
  const auto opened = OpenMetadata(folder_ / "absent");
  EXPECT_EQ(ReasonOf(opened.status()), Reason::kIo);
  EXPECT_THAT(MessageOf(opened.status()), HasSubstr("/absent"));
  const auto read = WithPoolView({folder_ / "absent", false, ""},
                                 [](PoolView&) { return absl::OkStatus(); });
  EXPECT_EQ(ReasonOf(read), Reason::kIo);
  EXPECT_THAT(MessageOf(read), HasSubstr("/absent"));
}

TEST_F(MetadataFile, ThatIsNoFileIsAnError) {
  EXPECT_EQ(ReasonOf(OpenMetadata(folder_).status()), Reason::kIo);
  const std::string fifo = folder_ / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(ReasonOf(OpenMetadata(fifo).status()), Reason::kIo);
}

TEST_F(MetadataFile, BlocksComeInTheOrderAsked) {
  std::string contents(5 * kMetadataBlockSize + 100, '\0');
  for (size_t block = 0; block < 5; ++block) {
    contents[block * kMetadataBlockSize] = static_cast<char>('a' + block);
  }
  const auto opened = OpenMetadata(Write(contents));
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ((*opened)->block_count(), 5U);
  const uint64_t blocks[] = {0, 2, 3, 3, 4};
  AlignedBuffer buffer(5 * kMetadataBlockSize);
  const absl::Status status = (*opened)->Read(blocks, buffer.span());
  ASSERT_TRUE(status.ok()) << status;
  std::string firsts;
  for (size_t index = 0; index < 5; ++index) {
    firsts += static_cast<char>(buffer.data()[index * kMetadataBlockSize]);
  }
  EXPECT_EQ(firsts, "acdde");
}

TEST_F(MetadataFile, ABlockBeyondTheEndIsAnErrorWithItsNumber) {
  const auto opened = OpenMetadata(Write(std::string(8192, '\0')));
  ASSERT_TRUE(opened.ok());
  const uint64_t blocks[] = {1, 2};
  AlignedBuffer buffer(8192);
  const absl::Status status = (*opened)->Read(blocks, buffer.span());
  EXPECT_EQ(ReasonOf(status), Reason::kIo);
  EXPECT_THAT(MessageOf(status), HasSubstr("metadata block 2"));
}

TEST_F(MetadataFile, ThatHoldsSomethingElseIsAnErrorWithTheField) {
  const absl::Status status =
      WithPoolView({Write(std::string(8192, 'x')), false, ""},
                   [](PoolView&) { return absl::OkStatus(); });
  EXPECT_EQ(ReasonOf(status), Reason::kIo);
  EXPECT_THAT(MessageOf(status), HasSubstr("superblock magic"));
}

TEST_F(MetadataFile, ThatIsEmptyIsAnError) {
  const absl::Status status = WithPoolView(
      {Write(""), false, ""}, [](PoolView&) { return absl::OkStatus(); });
  EXPECT_EQ(ReasonOf(status), Reason::kIo);
  EXPECT_THAT(MessageOf(status), HasSubstr("metadata block 0"));
}

}  // namespace
}  // namespace snapsync
