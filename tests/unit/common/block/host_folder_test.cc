// SPDX-License-Identifier: Apache-2.0
#include "common/block/host_folder.h"

#include <sys/stat.h>
#include <unistd.h>

#include "common/base/aligned_buffer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync {
namespace {

using ::testing::IsSupersetOf;

class HostFolderTest : public ::testing::Test {
 protected:
  HostFolderTest() {
    auto folder = OpenHostFolder(temporary_.path());
    EXPECT_THAT(folder, IsOk());
    folder_ = *std::move(folder);
  }
  struct stat FactsOf(const std::string& name) const {
    struct stat facts {};
    EXPECT_EQ(::lstat((temporary_ / name).c_str(), &facts), 0) << name;
    return facts;
  }

  const TemporaryFolder temporary_;
  std::unique_ptr<HostFolder> folder_;
};

TEST_F(HostFolderTest, WhatIsNoRegularFileOfOneNameIsNotOpened) {
  WriteContents(temporary_ / "file", "x");
  ASSERT_EQ(::symlink("file", (temporary_ / "link").c_str()), 0);
  ASSERT_EQ(::mkfifo((temporary_ / "pipe").c_str(), 0600), 0);
  WriteContents(temporary_ / "two", "x");
  ASSERT_EQ(
      ::link((temporary_ / "two").c_str(), (temporary_ / "names").c_str()), 0);
  for (const auto access :
       {HostFolder::Access::kRead, HostFolder::Access::kWrite}) {
    EXPECT_THAT(folder_->Open("link", access),
                FailsWith(Reason::kTargetUnsuitable, "symbolic link"));
    EXPECT_THAT(folder_->Open("pipe", access),
                FailsWith(Reason::kTargetUnsuitable, "no regular file"));
    EXPECT_THAT(folder_->Open("two", access),
                FailsWith(Reason::kTargetUnsuitable, "2 names"));
    const auto missing = folder_->Open("missing", access);
    ASSERT_THAT(missing, IsOk());
    EXPECT_EQ(*missing, nullptr);
  }
}

TEST_F(HostFolderTest, AFileIsMadeOnceAndForItsOwnerAlone) {
  ASSERT_THAT(folder_->Create("new"), IsOk());
  EXPECT_EQ(FactsOf("new").st_mode & 07777U, 0600U);
  EXPECT_THAT(folder_->Create("new"),
              FailsWith(Reason::kTargetUnsuitable, "new can't be made"));
}

TEST_F(HostFolderTest, AFileGrowsByWhatIsWritten) {
  auto file = folder_->Create("new");
  ASSERT_THAT(file, IsOk());
  AlignedBuffer buffer(8192);
  buffer.data()[8191] = std::byte{7};
  const WriteOperation write{1 << 20, buffer.span()};
  ASSERT_THAT((*file)->Write({&write, 1}), IsOk());
  EXPECT_EQ((*file)->Size().value_or(0), (1U << 20) + 8192);
  AlignedBuffer back(8192);
  const ReadOperation read{1 << 20, back.span()};
  ASSERT_THAT((*file)->Read({&read, 1}), IsOk());
  EXPECT_EQ(back.data()[8191], std::byte{7});
  const ReadOperation beyond{2 << 20, back.span()};
  EXPECT_THAT((*file)->Read({&beyond, 1}), FailsWith(Reason::kIo, "2097152"));
  ASSERT_THAT((*file)->Resize(4096), IsOk());
  EXPECT_EQ(FactsOf("new").st_size, 4096);
}

TEST_F(HostFolderTest, CachedReadsAndWritesTakeAnyLength) {
  auto file = folder_->Create("new");
  ASSERT_THAT(file, IsOk());
  const std::string text = "seventeen bytes!!";
  const auto bytes = std::as_bytes(std::span(text));
  ASSERT_THAT((*file)->WriteCached(3, bytes), IsOk());
  EXPECT_EQ(ContentsOf(temporary_ / "new"), std::string(3, '\0') + text);
  std::vector<std::byte> back(text.size());
  ASSERT_THAT((*file)->ReadCached(3, back), IsOk());
  EXPECT_TRUE(std::equal(back.begin(), back.end(), bytes.begin()));
  EXPECT_THAT((*file)->ReadCached(4, back),
              FailsWith(Reason::kIo, "17 bytes at offset 4"));
}

TEST_F(HostFolderTest, APunchedRangeTakesNoSpace) {
  auto file = folder_->Create("new");
  ASSERT_THAT(file, IsOk());
  AlignedBuffer buffer(1 << 20);
  std::fill_n(buffer.data(), buffer.size(), std::byte{1});
  const WriteOperation write{0, buffer.span()};
  ASSERT_THAT((*file)->Write({&write, 1}), IsOk());
  ASSERT_THAT((*file)->Flush(), IsOk());
  const auto before = FactsOf("new").st_blocks;
  ASSERT_THAT((*file)->Punch({4096, 1 << 19}), IsOk());
  EXPECT_LE(FactsOf("new").st_blocks, before - 1024);
  EXPECT_EQ(FactsOf("new").st_size, 1 << 20);
}

TEST_F(HostFolderTest, ARenameReplacesOnlyWhenItMay) {
  WriteContents(temporary_ / "a", "a");
  WriteContents(temporary_ / "b", "b");
  EXPECT_THAT(folder_->Rename("a", "b", HostFolder::IfThere::kRefuse),
              FailsWith(Reason::kTargetUnsuitable, "a can't be renamed to b"));
  EXPECT_EQ(ContentsOf(temporary_ / "b"), "b");
  ASSERT_THAT(folder_->Rename("a", "c", HostFolder::IfThere::kRefuse), IsOk());
  ASSERT_THAT(folder_->Rename("c", "b", HostFolder::IfThere::kReplace), IsOk());
  EXPECT_EQ(ContentsOf(temporary_ / "b"), "a");
  EXPECT_THAT(folder_->Rename("c", "b", HostFolder::IfThere::kReplace),
              FailsWith(Reason::kIo, "c can't be renamed"));
}

TEST_F(HostFolderTest, RemovingWhatIsNotThereIsNoError) {
  WriteContents(temporary_ / "a", "a");
  WriteContents(temporary_ / "b", "b");
  EXPECT_THAT(folder_->Names().value_or(std::vector<std::string>()),
              IsSupersetOf({"a", "b"}));
  ASSERT_THAT(folder_->Remove("a"), IsOk());
  ASSERT_THAT(folder_->Remove("a"), IsOk());
  EXPECT_FALSE(std::filesystem::exists(temporary_ / "a"));
  EXPECT_THAT(folder_->Flush(), IsOk());
}

TEST_F(HostFolderTest, AFileTakesTheModeOfAnother) {
  WriteContents(temporary_ / "old", "x");
  ASSERT_EQ(::chmod((temporary_ / "old").c_str(), 0640), 0);
  const auto old = folder_->Open("old", HostFolder::Access::kRead);
  ASSERT_THAT(old, IsOk());
  auto file = folder_->Create("new");
  ASSERT_THAT(file, IsOk());
  ASSERT_THAT((*file)->TakeOwnerOf(**old), IsOk());
  EXPECT_EQ(FactsOf("new").st_mode & 07777U, 0640U);
}

TEST(OpenHostFolder, SaysWhichFolderIsMissing) {
  const TemporaryFolder temporary;
  EXPECT_THAT(OpenHostFolder(temporary / "missing"),
              FailsWith(Reason::kTargetUnsuitable, "missing"));
}

}  // namespace
}  // namespace snapsync
