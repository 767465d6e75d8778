// SPDX-License-Identifier: Apache-2.0
#include "sender/progress.h"

#include <unistd.h>

#include <iostream>

#include "absl/strings/str_format.h"
#include "common/base/units.h"

namespace snapsync {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kTerminalInterval{250};
constexpr std::chrono::seconds kLogInterval{15};

}  // namespace

ProgressLine::ProgressLine()
    : terminal_(::isatty(STDERR_FILENO) == 1),
      begin_(steady_clock::now()),
      last_(begin_) {}

ProgressLine::~ProgressLine() { Clear(); }

void ProgressLine::Clear() {
  if (shown_) std::cerr << "\r\x1b[K" << std::flush;
  shown_ = false;
}

void ProgressLine::Notice(const std::string& text) {
  Clear();
  std::cerr << "snapsync-send: " << text << "\n";
}

void ProgressLine::Update(const PumpProgress& progress) {
  if (!started_) {
    started_ = true;
    done_at_start_ = progress.done_bytes;
  }
  const auto now = steady_clock::now();
  if (terminal_ ? now - last_ < kTerminalInterval
                : now - last_ < kLogInterval) {
    return;
  }
  last_ = now;
  const double seconds = std::chrono::duration<double>(now - begin_).count();
  const double rate =
      static_cast<double>(progress.done_bytes - done_at_start_) / seconds;
  const double left =
      rate > 0
          ? static_cast<double>(progress.total_bytes - progress.done_bytes) /
                rate
          : 0;
  const std::string text = absl::StrFormat(
      "%s of %s, %d %%, %s/s, %s left", FormatBytes(progress.done_bytes),
      FormatBytes(progress.total_bytes),
      progress.total_bytes == 0
          ? 100
          : static_cast<int>(100.0 * static_cast<double>(progress.done_bytes) /
                             static_cast<double>(progress.total_bytes)),
      FormatBytes(static_cast<uint64_t>(rate)), FormatSeconds(left));
  if (terminal_) {
    std::cerr << "\r\x1b[K" << text << std::flush;
    shown_ = true;
  } else {
    std::cerr << "snapsync-send: " << text << "\n";
  }
}

}  // namespace snapsync
