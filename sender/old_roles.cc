// SPDX-License-Identifier: Apache-2.0
#include "sender/old_roles.h"

#include <INIReader.h>

#include "common/base/error.h"

namespace snapsync {

absl::Status ReadOldConfig(const std::string& path, SenderConfig& config) {
  const INIReader file(path);
  if (const int line = file.ParseError(); line != 0) {
    return Error(Reason::kConfiguration,
                 line < 0 ? path + " can't be read"
                          : path + ":" + std::to_string(line) +
                                ": neither [SECTION] nor KEY=VALUE");
  }
  config.log_directory = file.Get("Logging", "directory", config.log_directory);
  const std::string level = file.Get("Logging", "file_level", "");
  if (level.empty()) return absl::OkStatus();
  if (level == "10") {
    config.log_level = Severity::kDebug;
  } else if (level == "20") {
    config.log_level = Severity::kInfo;
  } else if (level == "30") {
    config.log_level = Severity::kWarning;
  } else if (level == "40" || level == "50") {
    config.log_level = Severity::kError;
  } else if (const auto named = ParseSeverity(level)) {
    config.log_level = *named;
  } else {
    return Error(Reason::kConfiguration,
                 path + ": [Logging] file_level must be 10, 20, 30, 40 or 50");
  }
  return absl::OkStatus();
}

}  // namespace snapsync
