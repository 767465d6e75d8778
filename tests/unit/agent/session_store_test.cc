// SPDX-License-Identifier: Apache-2.0
#include "agent/session_store.h"

#include <filesystem>

#include "gtest/gtest.h"
#include "tests/testing/random.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync {
namespace {

class SessionStoreTest : public testing::Test {
 protected:
  std::unique_ptr<SessionStore> Open() {
    auto store = OpenFileSessionStore(folder_ / "state");
    EXPECT_THAT(store, IsOk());
    return *std::move(store);
  }
  std::string StatePath() const { return folder_ / "state/targets/vol.state"; }
  std::string JournalPath() const {
    return folder_ / "state/targets/vol.journal";
  }

  const TemporaryFolder folder_;
  Random random_{1};
};

TEST_F(SessionStoreTest, AStateDirectoryThatCantBeMadeIsNamed) {
  WriteContents(folder_ / "file", "x");
  EXPECT_THAT(OpenFileSessionStore(folder_ / "file"),
              FailsWith(Reason::kIo, folder_ / "file"));
}

TEST_F(SessionStoreTest, ADamagedRecordIsAnErrorNotAMissingOne) {
  const auto store = Open();
  ASSERT_THAT(store->Save("vol", TargetRecord{}), IsOk());
  std::string contents = ContentsOf(StatePath());
  contents.back() = 'x';
  WriteContents(StatePath(), contents);
  EXPECT_THAT(store->Load("vol"), FailsWith(Reason::kIo, StatePath()));
}

TEST_F(SessionStoreTest, AVolumeWithoutARecordHasNone) {
  const auto record = Open()->Load("vol");
  ASSERT_THAT(record, IsOk());
  EXPECT_FALSE(record->has_value());
}

TEST_F(SessionStoreTest, ARecordIsThereAfterARestart) {
  TargetRecord record;
  record.state = TargetState::kAt;
  record.generation = random_.Id();
  ASSERT_THAT(Open()->Save("vol", record), IsOk());
  const auto back = Open()->Load("vol");
  ASSERT_THAT(back, IsOk());
  ASSERT_TRUE(back->has_value());
  EXPECT_EQ((*back)->generation, record.generation);
  EXPECT_FALSE((*Open()->Load("other")).has_value());
}

TEST_F(SessionStoreTest, AJournalIsMadeWithRealZeroesAndIsThereAfterARestart) {
  const Id128 session = random_.Id();
  {
    const auto journal = Open()->OpenJournal("vol", session);
    ASSERT_THAT(journal, IsOk());
    EXPECT_EQ(std::filesystem::file_size(JournalPath()), Journal::kBytes);
    ASSERT_THAT((*journal)->Append({42, {}}), IsOk());
  }
  const auto journal = Open()->OpenJournal("vol", session);
  ASSERT_THAT(journal, IsOk());
  EXPECT_EQ((*journal)->last().watermark, 42U);
}

TEST_F(SessionStoreTest, AJournalOfAnotherSizeIsMadeAnew) {
  const auto store = Open();
  WriteContents(JournalPath(), "cut off by a full disk");
  const auto journal = store->OpenJournal("vol", random_.Id());
  ASSERT_THAT(journal, IsOk());
  EXPECT_EQ((*journal)->last().watermark, 0U);
  EXPECT_EQ(std::filesystem::file_size(JournalPath()), Journal::kBytes);
}

}  // namespace
}  // namespace snapsync
