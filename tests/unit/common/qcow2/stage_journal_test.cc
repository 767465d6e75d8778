// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/stage_journal.h"

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync::qcow2 {
namespace {

using Records = std::vector<MapRecord>;

class StageJournalTest : public ::testing::Test {
 protected:
  StageJournalTest() {
    head_.stage = Id128::Random();
    head_.base = Id128::Random();
    head_.size = 1 << 30;
    head_.base_clusters = 77;
    head_.base_bytes = 77 << 16;
    head_.geometry.cluster_bits = 21;
    head_.compression = 2;
    auto file = folder_->Create("journal");
    EXPECT_THAT(file, IsOk());
    auto journal = StageJournal::Create(*std::move(file), head_);
    EXPECT_THAT(journal, IsOk());
    journal_ = *std::move(journal);
  }

  // As another process, after this one is gone.
  absl::StatusOr<std::unique_ptr<StageJournal>> Open() {
    journal_.reset();
    auto file = folder_->Open("journal", HostFolder::Access::kWrite);
    EXPECT_THAT(file, IsOk());
    return StageJournal::Open(*std::move(file));
  }
  static Records AllOf(StageJournal& journal) {
    Records records;
    EXPECT_THAT(journal.Replay([&](const MapRecord& record) {
      records.push_back(record);
      return absl::OkStatus();
    }),
                IsOk());
    return records;
  }
  std::string Bytes() const { return ContentsOf(path_); }
  void SetBytes(const std::string& bytes) const { WriteContents(path_, bytes); }

  const TemporaryFolder temporary_;
  const std::string path_ = temporary_ / "journal";
  const std::unique_ptr<HostFolder> folder_ =
      *OpenHostFolder(temporary_.path());
  StageHead head_;
  std::unique_ptr<StageJournal> journal_;
  const Records first_ = {{1, 2, 3}, {4, 5, 6}};
  const Records second_ = {{7, 8, 9}};
};

TEST_F(StageJournalTest, GivesBackWhatWasAppended) {
  ASSERT_THAT(journal_->Append(first_), IsOk());
  ASSERT_THAT(journal_->Append(second_), IsOk());
  const auto again = Open();
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ((*again)->head(), head_);
  EXPECT_EQ(AllOf(**again), (Records{{1, 2, 3}, {4, 5, 6}, {7, 8, 9}}));
}

TEST_F(StageJournalTest, TakesManyRecordsAtOnce) {
  Records many;
  for (uint64_t i = 0; i < 200'000; ++i) many.push_back({i, i * 2, i * 3});
  ASSERT_THAT(journal_->Append(many), IsOk());
  ASSERT_THAT(journal_->Append(second_), IsOk());
  const auto again = Open();
  ASSERT_THAT(again, IsOk());
  many.insert(many.end(), second_.begin(), second_.end());
  EXPECT_EQ(AllOf(**again), many);
}

TEST_F(StageJournalTest, CutAnywhereIsItsLongestWholePrefix) {
  const size_t head_bytes = Bytes().size();
  ASSERT_THAT(journal_->Append(first_), IsOk());
  const size_t first_end = Bytes().size();
  ASSERT_THAT(journal_->Append(second_), IsOk());
  const std::string whole = Bytes();
  for (size_t length = 0; length < whole.size(); ++length) {
    SetBytes(whole.substr(0, length));
    const auto journal = Open();
    if (length < head_bytes) {
      ASSERT_THAT(journal, FailsWith(Reason::kBaseMismatch, "no journal"));
      continue;
    }
    ASSERT_THAT(journal, IsOk());
    ASSERT_EQ(AllOf(**journal), length < first_end ? Records() : first_);
  }
}

TEST_F(StageJournalTest, ADamagedBlockEndsIt) {
  const size_t head_bytes = Bytes().size();
  ASSERT_THAT(journal_->Append(first_), IsOk());
  const size_t first_end = Bytes().size();
  ASSERT_THAT(journal_->Append(second_), IsOk());
  const std::string whole = Bytes();
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << (at % 8)));
    SetBytes(damaged);
    const auto journal = Open();
    if (at < head_bytes) {
      ASSERT_THAT(journal, FailsWith(Reason::kBaseMismatch, "no journal"));
      continue;
    }
    ASSERT_THAT(journal, IsOk());
    ASSERT_EQ(AllOf(**journal), at < first_end ? Records() : first_);
  }
}

// What follows a damaged block must not be found behind the next good one.
TEST_F(StageJournalTest, GoesOnBehindTheValidPrefix) {
  ASSERT_THAT(journal_->Append(first_), IsOk());
  const size_t first_end = Bytes().size();
  ASSERT_THAT(journal_->Append(second_), IsOk());
  ASSERT_THAT(journal_->Append(second_), IsOk());
  std::string bytes = Bytes();
  bytes[first_end + 40] ^= 1;
  SetBytes(bytes);
  const Records other = {{11, 12, 13}};
  {
    const auto journal = Open();
    ASSERT_THAT(journal, IsOk());
    ASSERT_THAT((*journal)->Append(other), IsOk());
  }
  const auto journal = Open();
  ASSERT_THAT(journal, IsOk());
  EXPECT_EQ(AllOf(**journal), (Records{{1, 2, 3}, {4, 5, 6}, {11, 12, 13}}));
}

TEST_F(StageJournalTest, IsWrittenByOneAtATime) {
  auto file = folder_->Open("journal", HostFolder::Access::kWrite);
  ASSERT_THAT(file, IsOk());
  EXPECT_THAT(StageJournal::Open(*std::move(file)),
              FailsWith(Reason::kBusy, "written by another process"));
  EXPECT_THAT(Open(), IsOk());
}

TEST_F(StageJournalTest, BlocksOfAnotherStageCountForNothing) {
  ASSERT_THAT(journal_->Append(first_), IsOk());
  const std::string bytes = Bytes();
  head_.stage = Id128::Random();
  ASSERT_THAT(folder_->Remove("journal"), IsOk());
  auto file = folder_->Create("journal");
  ASSERT_THAT(file, IsOk());
  ASSERT_THAT(StageJournal::Create(*std::move(file), head_), IsOk());
  const std::string head = Bytes();
  SetBytes(head + bytes.substr(head.size()));
  const auto journal = Open();
  ASSERT_THAT(journal, IsOk());
  EXPECT_EQ(AllOf(**journal), Records());
}

}  // namespace
}  // namespace snapsync::qcow2
