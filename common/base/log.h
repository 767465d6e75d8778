// SPDX-License-Identifier: Apache-2.0
//
// The log: to stderr, and to files when a directory is configured. glog stands
// behind it, in log.cc alone. What came from a peer or a file is quoted and
// cut by the caller; block contents and chunk checksums are never logged.
//
// Thread-safe.
//
//   Log(Severity::kInfo, absl::StrCat("session ", id, " opened"));
#ifndef SNAPSYNC_COMMON_BASE_LOG_H_
#define SNAPSYNC_COMMON_BASE_LOG_H_

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace snapsync {

enum class Severity { kDebug, kInfo, kWarning, kError };

struct LogOptions {
  std::string program;    // the files' name
  std::string directory;  // empty: no files
  Severity file_level = Severity::kInfo;
  Severity console_level = Severity::kWarning;
};

// Called once, before the first Log(). kConfiguration when the directory can't
// be written.
absl::Status StartLog(const LogOptions& options);

// "debug", "info", "warning", "error".
std::optional<Severity> ParseSeverity(std::string_view text);

void Log(Severity severity, std::string_view message,
         const char* file = __builtin_FILE(), int line = __builtin_LINE());

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BASE_LOG_H_
