// SPDX-License-Identifier: Apache-2.0
//
// What went wrong, in the terms an operator or a script can act on. Errors are
// absl::Status values that carry a Reason; the reason's number is the exit code
// of the programs (docs/operating.md has the table) and crosses the wire as it
// is. The text names the device or file, the offset or field, and what to do
// next.
//
// Thread-safe: pure functions.
#ifndef SNAPSYNC_COMMON_BASE_ERROR_H_
#define SNAPSYNC_COMMON_BASE_ERROR_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace snapsync {

enum class Reason {
  kOther = 1,             // a permanent failure that no other line names
  kUsage = 2,             // the command line
  kConfiguration = 3,     // a configuration file
  kConnection = 4,        // connection, timeout, restart: try again
  kPermission = 5,        // certificate or right
  kBaseMismatch = 6,      // no common base, or a delta that can't be trusted
  kBusy = 7,              // held by somebody else: try again
  kVerification = 8,      // what arrived or was read back is not what was sent
  kTargetUnsuitable = 9,  // size, kind, another device
  kIo = 10,               // a device or file failed, or damaged metadata
  kNoSpace = 11,          // no room at the target: make some, and go on
};

inline constexpr int kLastReason = static_cast<int>(Reason::kNoSpace);

// A status with `reason`. Never OK.
absl::Status Error(Reason reason, std::string_view message);

// The same for a failed system call: appends the text of `error_number`.
// EBUSY becomes kBusy, EACCES and EPERM kPermission, else `reason`.
absl::Status PosixError(int error_number, std::string_view message,
                        Reason reason = Reason::kIo);

// Of a write that failed: no space (kNoSpace) is for the operator, not the
// disk's fault, and so is a limit (kTargetUnsuitable); else kIo.
absl::Status WriteError(int error_number, std::string_view message);

// The reason carried by `status`; for a status made elsewhere, the nearest
// one to its code. Requires !status.ok().
Reason ReasonOf(const absl::Status& status);

// `status` with "context: " before its text, the reason kept.
absl::Status Annotate(const absl::Status& status, std::string_view context);

// 0 for OK, else the number of the reason.
int ExitCode(const absl::Status& status);

// The text of a status as std::string_view (Debian's Abseil has its own type).
std::string_view MessageOf(const absl::Status& status);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BASE_ERROR_H_
