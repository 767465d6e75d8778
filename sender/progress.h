// SPDX-License-Identifier: Apache-2.0
//
// Tells on stderr how far a transfer is: on a terminal one line that is written
// over, elsewhere a line now and then. Used by one thread at a time.
#ifndef SNAPSYNC_SENDER_PROGRESS_H_
#define SNAPSYNC_SENDER_PROGRESS_H_

#include <chrono>
#include <cstdint>
#include <string>

#include "sender/pump.h"

namespace snapsync {

class ProgressLine {
 public:
  ProgressLine();
  // Leaves the cursor at the start of a line.
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void Update(const PumpProgress& progress);
  // A line of its own, above the progress.
  void Notice(const std::string& text);

 private:
  void Clear();

  const bool terminal_;
  const std::chrono::steady_clock::time_point begin_;
  std::chrono::steady_clock::time_point last_;
  bool shown_ = false;
  bool started_ = false;
  uint64_t done_at_start_ = 0;
};

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_PROGRESS_H_
