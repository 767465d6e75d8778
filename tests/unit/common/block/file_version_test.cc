// SPDX-License-Identifier: Apache-2.0
#include "common/block/file_version.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ctime>
#include <string>

#include "common/base/unique_fd.h"
#include "gtest/gtest.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync {
namespace {

class FileVersionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fd_.Reset(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_EQ(::ftruncate(fd_.get(), 4096), 0);
    ASSERT_EQ(::fstat(fd_.get(), &facts_), 0);
    facts_.st_mtim.tv_sec -= 60;
    facts_.st_ctim.tv_sec -= 60;
  }

  TemporaryFolder folder_;
  std::string path_ = folder_ / "file";
  UniqueFd fd_;
  struct stat facts_ {};  // as if nobody had touched it for a minute
};

TEST_F(FileVersionTest, IsTheSameAsLongAsNothingIsChanged) {
  EXPECT_NE(FileVersion(facts_), "");
  EXPECT_EQ(FileVersion(facts_), FileVersion(facts_));
}

TEST_F(FileVersionTest, EachChangeMakesAnother) {
  const auto differs = [this](auto change) {
    struct stat other = facts_;
    change(other);
    return FileVersion(other) != FileVersion(facts_);
  };
  EXPECT_TRUE(differs([](auto& other) { ++other.st_dev; }));
  EXPECT_TRUE(differs([](auto& other) { ++other.st_ino; }));
  EXPECT_TRUE(differs([](auto& other) { ++other.st_size; }));
  EXPECT_TRUE(differs([](auto& other) { other.st_mtim.tv_nsec ^= 1; }));
  EXPECT_TRUE(differs([](auto& other) { other.st_ctim.tv_nsec ^= 1; }));
}

// Two changes within a tick of the kernel's clock have one time stamp.
TEST_F(FileVersionTest, OfWhatWasChangedJustNowThereIsNone) {
  EXPECT_EQ(FileVersion(fd_.get()), "");
  EXPECT_EQ(FileVersion(path_), "");
  // The time of the last write can be set, that of the last change can't.
  const timespec times[2] = {{1, 0}, {1, 0}};
  ASSERT_EQ(::futimens(fd_.get(), times), 0);
  EXPECT_EQ(FileVersion(fd_.get()), "");
  facts_.st_ctim.tv_sec += 3600;  // the clock was set back since
  EXPECT_EQ(FileVersion(facts_), "");
}

TEST_F(FileVersionTest, WhatIsNoRegularFileHasNone) {
  EXPECT_EQ(FileVersion(std::string("/dev/null")), "");
  EXPECT_EQ(FileVersion(folder_ / "nothing"), "");
}

}  // namespace
}  // namespace snapsync
