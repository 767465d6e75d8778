// SPDX-License-Identifier: Apache-2.0
#include "common/block/file_holes.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/testing/temporary_folder.h"

namespace snapsync {
namespace {

class FileHolesTest : public testing::Test {
 protected:
  void Write(uint64_t offset, size_t length) {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(offset));
    file << std::string(length, 'x');
  }

  void MakeFile(uint64_t size) {
    std::ofstream(path_).close();
    std::filesystem::resize_file(path_, size);
  }

  ExtentList Find(uint64_t size) {
    auto found = FindFileData(path_, size);
    EXPECT_TRUE(found.ok()) << found.status();
    return found.ok() ? *std::move(found) : ExtentList();
  }

  const TemporaryFolder folder_;
  const std::string path_ = folder_ / "file";
};

TEST_F(FileHolesTest, WhatWasWrittenIsFoundInWholeGrains) {
  MakeFile(100 * kMiB + 512);
  Write(10 * kMiB + 5, 1);
  Write(10 * kMiB + kHoleGrainBytes, kHoleGrainBytes);
  Write(100 * kMiB + 511, 1);
  const ExtentList found = Find(100 * kMiB + 512);
  ExtentList wanted;
  wanted.Append({10 * kMiB, 2 * kHoleGrainBytes});
  wanted.Append({100 * kMiB, 512});
  EXPECT_EQ(found, wanted);
}

TEST_F(FileHolesTest, AFileOfHolesHasNoData) {
  MakeFile(kMiB);
  EXPECT_TRUE(Find(kMiB).empty());
  MakeFile(0);
  EXPECT_TRUE(Find(0).empty());
}

TEST_F(FileHolesTest, OnlyWhatIsAskedForIsLookedAt) {
  MakeFile(kMiB);
  Write(0, kMiB);
  EXPECT_EQ(Find(1536).bytes(), 1536U);
}

TEST_F(FileHolesTest, OfWhatIsNoFileAllIsData) {
  const auto found = FindFileData("/dev/zero", kMiB);
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->bytes(), kMiB);
}

}  // namespace
}  // namespace snapsync
