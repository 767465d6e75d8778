// SPDX-License-Identifier: Apache-2.0
#include "common/base/subprocess.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>

#include "common/base/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace snapsync {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

absl::StatusOr<SubprocessResult> Shell(const std::string& script,
                                       const SubprocessLimits& limits = {}) {
  return RunSubprocess({"sh", "-c", script}, limits);
}

TEST(Subprocess, AProgramThatDoesNotExistIsNamed) {
  const auto result = RunSubprocess({"no-such-program"});
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(ReasonOf(result.status()), Reason::kConfiguration);
  EXPECT_THAT(std::string(MessageOf(result.status())),
              HasSubstr("no-such-program"));
}

TEST(Subprocess, ARelativePathIsNeverRun) {
  const auto result = RunSubprocess({"./sh", "-c", "exit 0"});
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(ReasonOf(result.status()), Reason::kConfiguration);
}

TEST(Subprocess, TheExitStatusComesBackAndTheLastWords) {
  const auto result = Shell("echo out; seq 1 9 >&2; exit 7");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->exit_status, 7);
  EXPECT_EQ(result->output, "out\n");
  EXPECT_THAT(DescribeFailure(*result), EndsWith("exit status 7: 4 5 6 7 8 9"));
}

TEST(Subprocess, ASignalIsAnExitStatusAbove128) {
  const auto result = Shell("kill -9 $$");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->exit_status, 128 + 9);
}

TEST(Subprocess, ArgumentsReachTheProgramAsTheyAre) {
  const auto result =
      RunSubprocess({"printf", "<%s>", "a b", "$HOME", "", "*"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->output, "<a b><$HOME><><*>");
}

TEST(Subprocess, TheEnvironmentIsClean) {
  ::setenv("SNAPSYNC_TEST_SECRET", "1", 1);
  ::setenv("DM_DISABLE_UDEV", "1", 1);
  const auto result = RunSubprocess({"env"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->output, Not(HasSubstr("SNAPSYNC_TEST_SECRET")));
  EXPECT_THAT(result->output, HasSubstr("LC_ALL=C\n"));
  EXPECT_THAT(result->output, HasSubstr("DM_DISABLE_UDEV=1\n"));
}

TEST(Subprocess, NoDescriptorOfOursIsOpenInIt) {
  const int leaky = ::open("/dev/zero", O_RDONLY);  // without O_CLOEXEC
  ASSERT_GE(leaky, 3);
  // ls itself opens the folder, as the lowest free number: 3.
  const auto result = RunSubprocess({"ls", "/proc/self/fd"});
  ::close(leaky);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->output, "0\n1\n2\n3\n");
}

TEST(Subprocess, StdinIsEmpty) {
  const auto result = RunSubprocess({"cat"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->output, "");
  EXPECT_EQ(result->exit_status, 0);
}

TEST(Subprocess, LargeOutputOnBothStreamsDoesNotBlock) {
  const auto result = Shell(
      "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; "
      "echo the end >&2");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->output.size(), 3000000U);
  EXPECT_LE(result->error_output.size(), 16384U);
  EXPECT_THAT(result->error_output, EndsWith("the end\n"));
}

TEST(Subprocess, MoreThanTheLimitIsAnError) {
  const auto result =
      Shell("head -c 2000000 /dev/zero", {.output_bytes = 1000000});
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(ReasonOf(result.status()), Reason::kIo);
}

TEST(Subprocess, AProgramThatHangsIsStopped) {
  const auto result =
      Shell("sleep 1000", {.time = std::chrono::milliseconds(100)});
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(ReasonOf(result.status()), Reason::kConnection);
}

TEST(Subprocess, AGrandchildThatHoldsTheOutputIsNotWaitedFor) {
  const auto result = Shell("sleep 1000 & echo $!");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->exit_status, 0);
  const pid_t left_over = std::atoi(result->output.c_str());
  ASSERT_GT(left_over, 1);
  ::kill(left_over, SIGKILL);
}

}  // namespace
}  // namespace snapsync
