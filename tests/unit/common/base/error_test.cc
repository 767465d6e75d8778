// SPDX-License-Identifier: Apache-2.0
#include "common/base/error.h"

#include <cerrno>

#include "absl/strings/cord.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace snapsync {
namespace {

constexpr int kReasons = 10;

TEST(Error, EachReasonComesBackAndIsTheExitCode) {
  for (int i = 1; i <= kReasons; ++i) {
    const absl::Status status = Error(static_cast<Reason>(i), "what");
    EXPECT_FALSE(status.ok());
    EXPECT_EQ(ReasonOf(status), static_cast<Reason>(i));
    EXPECT_EQ(ExitCode(status), i);
    EXPECT_EQ(MessageOf(status), "what");
  }
  EXPECT_EQ(ExitCode(absl::OkStatus()), 0);
}

TEST(Error, AStatusFromElsewhereHasTheNearestReason) {
  EXPECT_EQ(ReasonOf(absl::UnavailableError("")), Reason::kConnection);
  EXPECT_EQ(ReasonOf(absl::DeadlineExceededError("")), Reason::kConnection);
  EXPECT_EQ(ReasonOf(absl::CancelledError("")), Reason::kConnection);
  EXPECT_EQ(ReasonOf(absl::PermissionDeniedError("")), Reason::kPermission);
  EXPECT_EQ(ReasonOf(absl::UnauthenticatedError("")), Reason::kPermission);
  EXPECT_EQ(ReasonOf(absl::AbortedError("")), Reason::kBusy);
  EXPECT_EQ(ReasonOf(absl::DataLossError("")), Reason::kIo);
  EXPECT_EQ(ReasonOf(absl::InternalError("")), Reason::kOther);
}

TEST(Error, APayloadThatIsNoReasonCountsForNothing) {
  for (const char* payload : {"", "0", "12", "-1", "x"}) {
    absl::Status status = absl::UnavailableError("");
    status.SetPayload("snapsync/reason", absl::Cord(payload));
    EXPECT_EQ(ReasonOf(status), Reason::kConnection) << payload;
  }
}

TEST(Error, ASystemCallSaysWhatTheSystemSays) {
  EXPECT_THAT(PosixError(ENOENT, "file"),
              FailsWith(Reason::kIo, "file: No such file or directory"));
  EXPECT_THAT(PosixError(EBUSY, "disk"), FailsWith(Reason::kBusy, "disk"));
  EXPECT_THAT(PosixError(EACCES, "key"), FailsWith(Reason::kPermission, "key"));
  EXPECT_THAT(PosixError(EPERM, "key"), FailsWith(Reason::kPermission, "key"));
  EXPECT_THAT(PosixError(ENOENT, "log", Reason::kConfiguration),
              FailsWith(Reason::kConfiguration, "log"));
}

TEST(Error, AWriteThatFindsNoSpaceIsForTheOperator) {
  for (const int number : {ENOSPC, EDQUOT}) {
    EXPECT_THAT(WriteError(number, "file"),
                FailsWith(Reason::kNoSpace, "file"));
  }
  EXPECT_THAT(WriteError(EFBIG, "file"),
              FailsWith(Reason::kTargetUnsuitable, "file"));
  EXPECT_THAT(WriteError(EIO, "file"), FailsWith(Reason::kIo, "file"));
}

TEST(Error, AnAnnotationKeepsTheReason) {
  EXPECT_THAT(Annotate(Error(Reason::kBusy, "held"), "volume a"),
              FailsWith(Reason::kBusy, "volume a: held"));
  EXPECT_THAT(Annotate(absl::OkStatus(), "volume a"), IsOk());
}

}  // namespace
}  // namespace snapsync
