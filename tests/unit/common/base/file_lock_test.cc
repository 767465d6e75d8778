// SPDX-License-Identifier: Apache-2.0
#include "common/base/file_lock.h"

#include <unistd.h>

#include "common/base/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace snapsync {
namespace {

using ::testing::HasSubstr;

std::string LockPath(const std::string& name) {
  return ::testing::TempDir() + "/snapsync-" + std::to_string(::getpid()) +
         "-" + name;
}

TEST(FileLock, ASecondHolderIsRefusedAndToldWho) {
  const std::string path = LockPath("second");
  const auto first = FileLock::Acquire(path);
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = FileLock::Acquire(path);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(ReasonOf(second.status()), Reason::kBusy);
  EXPECT_THAT(std::string(MessageOf(second.status())),
              HasSubstr("process " + std::to_string(::getpid())));
  ::unlink(path.c_str());
}

TEST(FileLock, ItIsFreeAgainAfterTheHolderIsGone) {
  const std::string path = LockPath("again");
  { ASSERT_TRUE(FileLock::Acquire(path).ok()); }
  EXPECT_TRUE(FileLock::Acquire(path).ok());
  ::unlink(path.c_str());
}

TEST(FileLock, AFolderThatDoesNotExistIsNamed) {
  const auto lock = FileLock::Acquire("/nonexistent/lock");
  ASSERT_FALSE(lock.ok());
  EXPECT_THAT(std::string(MessageOf(lock.status())),
              HasSubstr("/nonexistent/lock"));
}

}  // namespace
}  // namespace snapsync
