// SPDX-License-Identifier: Apache-2.0
#include "common/base/error.h"

#include <cerrno>
#include <system_error>

#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"

namespace snapsync {
namespace {

constexpr char kPayload[] = "snapsync/reason";

absl::StatusCode CodeOf(Reason reason) {
  switch (reason) {
    case Reason::kUsage:
    case Reason::kConfiguration:
      return absl::StatusCode::kInvalidArgument;
    case Reason::kConnection:
      return absl::StatusCode::kUnavailable;
    case Reason::kPermission:
      return absl::StatusCode::kPermissionDenied;
    case Reason::kBaseMismatch:
    case Reason::kTargetUnsuitable:
      return absl::StatusCode::kFailedPrecondition;
    case Reason::kBusy:
      return absl::StatusCode::kAborted;
    case Reason::kVerification:
    case Reason::kIo:
      return absl::StatusCode::kDataLoss;
    case Reason::kNoSpace:
      return absl::StatusCode::kResourceExhausted;
    case Reason::kOther:
      break;
  }
  return absl::StatusCode::kUnknown;
}

}  // namespace

absl::Status Error(Reason reason, std::string_view message) {
  absl::Status status(CodeOf(reason),
                      absl::string_view(message.data(), message.size()));
  status.SetPayload(kPayload,
                    absl::Cord(std::to_string(static_cast<int>(reason))));
  return status;
}

absl::Status PosixError(int error_number, std::string_view message,
                        Reason reason) {
  if (error_number == EBUSY) reason = Reason::kBusy;
  if (error_number == EACCES || error_number == EPERM) {
    reason = Reason::kPermission;
  }
  return Error(reason, std::string(message) + ": " +
                           std::generic_category().message(error_number));
}

absl::Status WriteError(int error_number, std::string_view message) {
  Reason reason = Reason::kIo;
  if (error_number == ENOSPC || error_number == EDQUOT) {
    reason = Reason::kNoSpace;
  }
  if (error_number == EFBIG) reason = Reason::kTargetUnsuitable;
  return PosixError(error_number, message, reason);
}

Reason ReasonOf(const absl::Status& status) {
  if (const auto payload = status.GetPayload(kPayload)) {
    const std::string text(*payload);
    const int number = std::atoi(text.c_str());
    if (number >= 1 && number <= kLastReason)
      return static_cast<Reason>(number);
  }
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kCancelled:
      return Reason::kConnection;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return Reason::kPermission;
    case absl::StatusCode::kAborted:
      return Reason::kBusy;
    case absl::StatusCode::kDataLoss:
      return Reason::kIo;
    default:
      return Reason::kOther;
  }
}

absl::Status Annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  return Error(ReasonOf(status),
               std::string(context) + ": " + std::string(MessageOf(status)));
}

int ExitCode(const absl::Status& status) {
  return status.ok() ? 0 : static_cast<int>(ReasonOf(status));
}

std::string_view MessageOf(const absl::Status& status) {
  return {status.message().data(), status.message().size()};
}

}  // namespace snapsync
