// SPDX-License-Identifier: Apache-2.0
//
// Images that are sealed as ours, with tables that are not.
#include "common/qcow2/committed_image.h"

#include <functional>

#include "common/base/aligned_buffer.h"
#include "common/base/status_macros.h"
#include "common/qcow2/cluster_entry.h"
#include "common/qcow2/image_update.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/common/qcow2/image_stage.h"

namespace snapsync::qcow2 {
namespace {

constexpr uint64_t kCluster = 64 << 10;
constexpr uint64_t kSize = 8 * kCluster;

class CommittedImageTest : public ::testing::Test {
 protected:
  CommittedImageTest() : stage_(kSize, 16, Compression::kNone) {
    Random random(1);
    stage_.WriteKind({0, kSize}, random, 0);
    stage_.Commit();
    folder_ =
        *OpenHostFolder(std::filesystem::path(stage_.path()).parent_path());
    Open();
    header_ = *ReadExportHeader(*file_);
    clusters_ = std::filesystem::file_size(stage_.path()) / kCluster;
    l2_at_ = *ReadBig(header_.l1_offset) & kEntryOffsetMask;
    block_at_ = *ReadBig(header_.refcount_table_offset);
  }

  void Open() {
    auto file = folder_->Open("image", HostFolder::Access::kWrite);
    EXPECT_THAT(file, IsOk());
    file_ = *std::move(file);
  }
  absl::StatusOr<uint64_t> ReadBig(uint64_t offset) {
    std::array<std::byte, 8> bytes{};
    SNAPSYNC_RETURN_IF_ERROR(file_->ReadCached(offset, bytes));
    return LoadBig<uint64_t>(bytes.data());
  }
  template <typename T>
  void WriteBig(uint64_t offset, T value) {
    std::array<std::byte, sizeof(T)> bytes{};
    StoreBig(bytes.data(), value);
    EXPECT_THAT(file_->WriteCached(offset, bytes), IsOk());
    EXPECT_THAT(file_->Flush(), IsOk());
    Open();
  }
  void WriteHeader() {
    EXPECT_THAT(file_->WriteCached(0, EncodeHeader(header_)), IsOk());
  }

  // Writes a new generation of all clusters.
  absl::Status Update() {
    SNAPSYNC_ASSIGN_OR_RETURN(const CommittedImage image,
                              ReadCommittedImage(*file_, clusters_));
    SNAPSYNC_ASSIGN_OR_RETURN(auto base,
                              BeginUpdate(*file_, image, kSize, clusters_));
    SNAPSYNC_ASSIGN_OR_RETURN(const auto writer,
                              ImageWriter::Open({}, kSize, std::move(base),
                                                std::move(file_), nullptr));
    AlignedBuffer data(kSize);
    Random(2).Fill(data.span());
    const WriteOperation write{0, data.span()};
    SNAPSYNC_RETURN_IF_ERROR(writer->Write({&write, 1}));
    return writer->Finish([&](ClusterStore& store) {
      return FinishUpdate(store, image, header_);
    });
  }

  // Is refused, and the header stays.
  void ExpectRefused(const std::string& words) {
    const std::string header = ContentsOf(stage_.path()).substr(0, 4096);
    EXPECT_THAT(Update(), FailsWith(Reason::kBaseMismatch, words));
    EXPECT_EQ(ContentsOf(stage_.path()).substr(0, 4096) == header, true);
  }

  ImageStage stage_;
  std::unique_ptr<HostFolder> folder_;
  std::unique_ptr<GrowingFile> file_;
  ExportHeader header_;
  uint64_t clusters_ = 0;
  uint64_t l2_at_ = 0;
  uint64_t block_at_ = 0;
};

TEST_F(CommittedImageTest, UntamperedIsUpdated) {
  EXPECT_THAT(Update(), IsOk());
}

TEST_F(CommittedImageTest, TablesOutsideOfTheFileAreRefused) {
  const ExportHeader good = header_;
  const uint64_t end = clusters_ * kCluster;
  for (const uint64_t offset : {uint64_t{0}, good.l1_offset + 512, end,
                                ~uint64_t{0} << 16, uint64_t{1} << 55}) {
    header_ = good;
    header_.l1_offset = offset;
    WriteHeader();
    ExpectRefused("run a full export");
    Open();
    header_ = good;
    header_.refcount_table_offset = offset;
    WriteHeader();
    ExpectRefused("run a full export");
    Open();
  }
}

TEST_F(CommittedImageTest, TablesOfAnotherSizeThanTheDiskNeedsAreRefused) {
  const ExportHeader good = header_;
  for (const uint32_t entries : {0U, 5U << 20, ~0U}) {
    header_ = good;
    header_.l1_entries = entries;
    WriteHeader();
    ExpectRefused("run a full export");
    Open();
  }
  for (const uint32_t clusters : {0U, 4U << 10, ~0U}) {
    header_ = good;
    header_.refcount_table_clusters = clusters;
    WriteHeader();
    ExpectRefused("run a full export");
    Open();
  }
  header_ = good;
  header_.size = uint64_t{1} << 62;
  WriteHeader();
  ExpectRefused("run a full export");
}

TEST_F(CommittedImageTest, EntriesThatNoExportWroteAreRefused) {
  const uint64_t end = clusters_ * kCluster;
  for (const uint64_t entry :
       {kEntryCopied | end, kEntryCopied | 512, kEntryCopied, kCluster,
        kEntryCopied | kCluster | 2, ~uint64_t{0}}) {
    const uint64_t l1 = *ReadBig(header_.l1_offset);
    WriteBig(header_.l1_offset, entry);
    ExpectRefused("run a full export");
    Open();
    WriteBig(header_.l1_offset, l1);
    const uint64_t l2 = *ReadBig(l2_at_ + 8);
    WriteBig(l2_at_ + 8, entry);
    ExpectRefused("run a full export");
    Open();
    WriteBig(l2_at_ + 8, l2);
    const uint64_t block = *ReadBig(header_.refcount_table_offset);
    WriteBig(header_.refcount_table_offset, entry);
    ExpectRefused("run a full export");
    Open();
    WriteBig(header_.refcount_table_offset, block);
  }
  // Compressed, reaching beyond the end.
  WriteBig(l2_at_, kL2Compressed | (end - 512) | uint64_t{3} << 54);
  ExpectRefused("run a full export");
}

TEST_F(CommittedImageTest, RefcountsThatAreNotTheTablesAreRefused) {
  const uint64_t l2_cluster = l2_at_ / kCluster;
  const uint64_t data_cluster =
      (*ReadBig(l2_at_) & kEntryOffsetMask) / kCluster;
  for (const uint64_t cluster :
       {data_cluster, l2_cluster, header_.l1_offset / kCluster,
        header_.refcount_table_offset / kCluster, block_at_ / kCluster}) {
    SCOPED_TRACE(cluster);
    for (const uint16_t count : {uint16_t{0}, uint16_t{2}, uint16_t{0xffff}}) {
      WriteBig(block_at_ + cluster * 2, count);
      ExpectRefused("run a full export");
      Open();
    }
    WriteBig(block_at_ + cluster * 2, uint16_t{1});
  }
  WriteBig(block_at_, uint16_t{0});
  ExpectRefused("the refcount of the header");
}

TEST_F(CommittedImageTest, AClusterOfTwoGuestsIsRefused) {
  WriteBig(l2_at_, *ReadBig(l2_at_ + 8));
  ExpectRefused("which is not what its tables say");
}

TEST_F(CommittedImageTest, AFileThatWasCutIsRefused) {
  clusters_ -= 1;
  ASSERT_THAT(file_->Resize(clusters_ * kCluster), IsOk());
  Open();
  ExpectRefused("run a full export");
}

}  // namespace
}  // namespace snapsync::qcow2
