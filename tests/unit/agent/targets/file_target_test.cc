// SPDX-License-Identifier: Apache-2.0
//
// What only a file can be, beyond the contract of all targets.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "agent/targets/target.h"
#include "common/base/aligned_buffer.h"
#include "common/base/error.h"
#include "common/base/unique_fd.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace snapsync {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kSize = 8 << 20;

class FileTargetTest : public ::testing::Test {
 protected:
  FileTargetTest() { std::filesystem::create_directories(folder_); }
  ~FileTargetTest() override { std::filesystem::remove_all(folder_); }

  std::string Path(const std::string& name) const {
    return folder_ + "/" + name;
  }

  void ExpectUnsuitable(const std::string& path, const std::string& words) {
    const auto target = MakeFileTarget(path);
    for (const absl::Status& status :
         {target->Inspect().status(), target->CreateStage(512, true).status(),
          target->CheckSeal("file-seal")}) {
      ASSERT_FALSE(status.ok());
      EXPECT_EQ(ReasonOf(status), Reason::kTargetUnsuitable) << status;
      EXPECT_THAT(std::string(MessageOf(status)), HasSubstr(words));
    }
  }

  struct stat Facts(const std::string& path) {
    struct stat facts {};
    EXPECT_EQ(::lstat(path.c_str(), &facts), 0) << path;
    return facts;
  }

  const std::string folder_ =
      ::testing::TempDir() + "/snapsync-files-" + std::to_string(::getpid());
};

TEST_F(FileTargetTest, ALinkToAFileIsRefusedAndTheFileLeftAlone) {
  std::ofstream(Path("real")) << "precious";
  std::filesystem::create_symlink("real", Path("link"));
  ExpectUnsuitable(Path("link"), "symbolic link");
  std::filesystem::create_hard_link(Path("real"), Path("second"));
  ExpectUnsuitable(Path("real"), "hard links");
  EXPECT_EQ(Facts(Path("real")).st_size, 8);
}

TEST_F(FileTargetTest, WhatIsNoFileIsRefusedAndNotOpened) {
  ASSERT_EQ(::mkfifo(Path("pipe").c_str(), 0600), 0);
  ExpectUnsuitable(Path("pipe"), "regular");  // opening it would hang
  ExpectUnsuitable(folder_, "regular");
  ExpectUnsuitable(Path(".."), "name");
  ExpectUnsuitable(folder_ + "/", "name");
  ExpectUnsuitable(Path("missing/file"), "missing");
}

TEST_F(FileTargetTest, ALinkInThePlaceOfTheStageIsRefused) {
  std::ofstream(Path("precious")) << "precious";
  std::filesystem::create_symlink("precious", Path("volume.snapsync-stage"));
  const auto target = MakeFileTarget(Path("volume"));
  EXPECT_FALSE(target->CreateStage(kSize, false).ok());
  EXPECT_FALSE(target->OpenStage("file-stage inode=1 birth=1").ok());
  EXPECT_EQ(Facts(Path("precious")).st_size, 8);
}

TEST_F(FileTargetTest, TheFolderMayBeReachedByALink) {
  std::filesystem::create_directory_symlink(folder_, folder_ + "-link");
  const auto direct = MakeFileTarget(Path("volume"))->Inspect();
  const auto linked = MakeFileTarget(folder_ + "-link/volume")->Inspect();
  std::filesystem::remove(folder_ + "-link");
  ASSERT_TRUE(direct.ok() && linked.ok());
  EXPECT_EQ(direct->identity, linked->identity);
}

TEST_F(FileTargetTest, AFileOfHolesIsBlank) {
  std::ofstream(Path("volume")).close();
  std::filesystem::resize_file(Path("volume"), kSize);
  const auto facts = MakeFileTarget(Path("volume"))->Inspect();
  ASSERT_TRUE(facts.ok()) << facts.status();
  EXPECT_TRUE(facts->blank);
  EXPECT_EQ(facts->size, kSize);
}

TEST_F(FileTargetTest, HolesStayHolesAndTheModeStays) {
  std::ofstream(Path("volume")) << "data";
  std::filesystem::resize_file(Path("volume"), kSize);
  ASSERT_EQ(::chmod(Path("volume").c_str(), 0640), 0);
  const auto target = MakeFileTarget(Path("volume"));
  const auto token = target->CreateStage(kSize, true);
  ASSERT_TRUE(token.ok()) << token.status();
  EXPECT_EQ(Facts(Path("volume.snapsync-stage")).st_mode & 07777U, 0600U);
  ASSERT_TRUE(target->Commit(*token, 1, Id128::Random(), "").ok());
  const struct stat facts = Facts(Path("volume"));
  EXPECT_EQ(facts.st_mode & 07777U, 0640U);
  EXPECT_EQ(facts.st_size, static_cast<off_t>(kSize));
  EXPECT_LT(static_cast<uint64_t>(facts.st_blocks) * 512, kSize / 8);
  std::string text(4, ' ');
  std::ifstream(Path("volume")).read(text.data(), 4);
  EXPECT_EQ(text, "data");
}

TEST_F(FileTargetTest, TheFileGrowsAndShrinksWithTheSource) {
  std::ofstream(Path("volume")) << std::string(4096, 'x');
  const auto target = MakeFileTarget(Path("volume"));
  for (const uint64_t size : {uint64_t{1} << 20, uint64_t{2048}}) {
    const auto token = target->CreateStage(size, true);
    ASSERT_TRUE(token.ok()) << token.status();
    ASSERT_TRUE(target->Commit(*token, 1, Id128::Random(), "").ok());
    EXPECT_EQ(Facts(Path("volume")).st_size, static_cast<off_t>(size));
  }
}

TEST_F(FileTargetTest, AWriteThatSetsTheTimesBackBreaksTheSeal) {
  std::ofstream(Path("volume")) << std::string(kSize, 'x');
  const auto target = MakeFileTarget(Path("volume"));
  const auto token = target->CreateStage(kSize, true);
  ASSERT_TRUE(token.ok()) << token.status();
  const auto seal = target->Commit(*token, 1, Id128::Random(), "");
  ASSERT_TRUE(seal.ok()) << seal.status();
  const struct stat before = Facts(Path("volume"));
  const UniqueFd fd(::open(Path("volume").c_str(), O_WRONLY | O_CLOEXEC));
  ASSERT_EQ(::pwrite(fd.get(), "y", 1, kSize / 2 + 12345), 1);
  const struct timespec times[2] = {before.st_atim, before.st_mtim};
  ASSERT_EQ(::futimens(fd.get(), times), 0);
  const absl::Status proven = target->CheckSeal(*seal);
  ASSERT_FALSE(proven.ok());
  EXPECT_EQ(ReasonOf(proven), Reason::kBaseMismatch);
}

TEST_F(FileTargetTest, AWriteRightAfterTheCommitShows) {
  std::ofstream(Path("volume")) << std::string(kSize, 'x');
  const auto target = MakeFileTarget(Path("volume"));
  for (int round = 0; round < 20; ++round) {
    const auto token = target->CreateStage(kSize, true);
    ASSERT_TRUE(token.ok()) << token.status();
    const auto seal = target->Commit(*token, 1, Id128::Random(), "");
    ASSERT_TRUE(seal.ok()) << seal.status();
    const UniqueFd fd(::open(Path("volume").c_str(), O_WRONLY | O_CLOEXEC));
    ASSERT_EQ(::pwrite(fd.get(), "y", 1, static_cast<off_t>(kSize / 2) + round),
              1);
    ASSERT_FALSE(target->CheckSeal(*seal).ok());
  }
}

}  // namespace
}  // namespace snapsync
