// SPDX-License-Identifier: Apache-2.0
#include "common/base/atomic_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync {
namespace {

mode_t ModeOf(const std::string& path) {
  struct stat facts {};
  return ::stat(path.c_str(), &facts) == 0 ? facts.st_mode & 07777U : 0;
}

TEST(AtomicFile, AFileThatDoesNotExistIsToldFromOneThatCantBeRead) {
  const TemporaryFolder folder;
  EXPECT_TRUE(absl::IsNotFound(ReadWholeFile(folder / "none").status()));
  EXPECT_THAT(ReadWholeFile(folder.path()),
              FailsWith(Reason::kIo, folder.path()));
}

TEST(AtomicFile, AFileLargerThanTheLimitIsRefused) {
  const TemporaryFolder folder;
  WriteContents(folder / "file", std::string(101, 'x'));
  EXPECT_THAT(ReadWholeFile(folder / "file", 100),
              FailsWith(Reason::kIo, "larger than 100 bytes"));
  EXPECT_EQ(*ReadWholeFile(folder / "file", 101), std::string(101, 'x'));
}

TEST(AtomicFile, AFolderThatDoesNotExistIsNamed) {
  EXPECT_THAT(WriteFileAtomically("/nonexistent/file", "x"),
              FailsWith(Reason::kIo, "/nonexistent/file"));
  EXPECT_THAT(SyncFolder("/nonexistent"),
              FailsWith(Reason::kIo, "/nonexistent"));
}

TEST(AtomicFile, AFailedWriteLeavesTheOldContents) {
  const TemporaryFolder folder;
  ASSERT_THAT(WriteFileAtomically(folder / "file", "old"), IsOk());
  // The temporary file's name is taken by a folder.
  std::filesystem::create_directory(folder / "file.new");
  EXPECT_THAT(WriteFileAtomically(folder / "file", "new"),
              FailsWith(Reason::kIo, "file.new"));
  EXPECT_EQ(ContentsOf(folder / "file"), "old");
}

TEST(AtomicFile, TheNewContentsReplaceTheOldAndAreReadableByTheOwnerAlone) {
  const TemporaryFolder folder;
  const std::string path = folder / "file";
  ASSERT_THAT(WriteFileAtomically(path, "a longer text"), IsOk());
  ASSERT_THAT(WriteFileAtomically(path, std::string("new\0x", 5)), IsOk());
  EXPECT_EQ(*ReadWholeFile(path), std::string("new\0x", 5));
  EXPECT_EQ(ModeOf(path), 0600U);
  EXPECT_FALSE(std::filesystem::exists(path + ".new"));
}

TEST(AtomicFile, ALeftoverTemporaryFileIsNotInTheWay) {
  const TemporaryFolder folder;
  WriteContents(folder / "file.new", "left by a crash, and longer");
  ASSERT_THAT(WriteFileAtomically(folder / "file", "new"), IsOk());
  EXPECT_EQ(ContentsOf(folder / "file"), "new");
}

TEST(AtomicFile, RemovingTwiceIsFine) {
  const TemporaryFolder folder;
  WriteContents(folder / "file", "x");
  EXPECT_THAT(RemoveFile(folder / "file"), IsOk());
  EXPECT_FALSE(std::filesystem::exists(folder / "file"));
  EXPECT_THAT(RemoveFile(folder / "file"), IsOk());
}

TEST(AtomicFile, RemovingAFolderFailsWithItsName) {
  const TemporaryFolder folder;
  const absl::Status status = RemoveFile(folder.path());
  ASSERT_FALSE(status.ok());
  EXPECT_NE(MessageOf(status).find(folder.path()), std::string_view::npos);
}

TEST(AtomicFile, FoldersAreMadeWithAllAboveThem) {
  const TemporaryFolder folder;
  const std::string path = folder / "a/b/c";
  ASSERT_THAT(MakeFolder(path), IsOk());
  EXPECT_EQ(ModeOf(path), 0700U);
  EXPECT_THAT(MakeFolder(path), IsOk());
  WriteContents(folder / "file", "x");
  EXPECT_THAT(MakeFolder(folder / "file"), FailsWith(Reason::kIo, "file"));
  EXPECT_THAT(MakeFolder(folder / "file/below"),
              FailsWith(Reason::kIo, "file/below"));
}

}  // namespace
}  // namespace snapsync
