// SPDX-License-Identifier: Apache-2.0
#include "common/base/log.h"

#include <glog/logging.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>

#include "common/base/error.h"

namespace snapsync {
namespace {

std::atomic<Severity> g_file_level{Severity::kInfo};
std::atomic<Severity> g_console_level{Severity::kWarning};
std::atomic<bool> g_files{false};

constexpr const char* NameOf(Severity severity) {
  switch (severity) {
    case Severity::kDebug:
      return "debug";
    case Severity::kInfo:
      return "info";
    case Severity::kWarning:
      return "warning";
    case Severity::kError:
      return "error";
  }
  return "?";
}

int GlogSeverity(Severity severity) {
  switch (severity) {
    case Severity::kWarning:
      return google::GLOG_WARNING;
    case Severity::kError:
      return google::GLOG_ERROR;
    default:
      return google::GLOG_INFO;
  }
}

}  // namespace

absl::Status StartLog(const LogOptions& options) {
  g_file_level = options.file_level;
  g_console_level = options.console_level;
  if (options.directory.empty()) return absl::OkStatus();
  if (::mkdir(options.directory.c_str(), 0750) != 0 && errno != EEXIST) {
    return PosixError(errno, options.directory + ": the log directory",
                      Reason::kConfiguration);
  }
  if (::access(options.directory.c_str(), W_OK) != 0) {
    return PosixError(errno, options.directory + ": the log directory",
                      Reason::kConfiguration);
  }
  FLAGS_log_dir = options.directory;
  FLAGS_logtostderr = false;
  FLAGS_alsologtostderr = false;
  FLAGS_stderrthreshold = google::NUM_SEVERITIES;  // we write stderr ourselves
  FLAGS_max_log_size = 100;                        // MiB a file
  FLAGS_logbuflevel = -1;                          // no line waits in memory
  // glog keeps the pointer.
  static std::string program;
  program = options.program;
  google::InitGoogleLogging(program.c_str());
  google::EnableLogCleaner(30);
  g_files = true;
  return absl::OkStatus();
}

std::optional<Severity> ParseSeverity(std::string_view text) {
  for (const Severity severity : {Severity::kDebug, Severity::kInfo,
                                  Severity::kWarning, Severity::kError}) {
    if (text == NameOf(severity)) return severity;
  }
  return std::nullopt;
}

void Log(Severity severity, std::string_view message, const char* file,
         int line) {
  if (severity >= g_console_level) {
    std::string text = NameOf(severity);
    text.append(": ").append(message).append("\n");
    // One write a line: lines of several threads do not mix.
    [[maybe_unused]] const ssize_t written =
        ::write(STDERR_FILENO, text.data(), text.size());
  }
  if (g_files && severity >= g_file_level) {
    google::LogMessage(file, line, GlogSeverity(severity)).stream() << message;
  }
}

}  // namespace snapsync
