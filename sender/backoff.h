// SPDX-License-Identifier: Apache-2.0
//
// The pauses between attempts to reach an agent: 0.2 s at first, twice as long
// each time, at most 10 s. What is waited for is told to people.
//
// Used by one thread at a time.
#ifndef SNAPSYNC_SENDER_BACKOFF_H_
#define SNAPSYNC_SENDER_BACKOFF_H_

#include <chrono>

#include "absl/status/status.h"
#include "sender/pump.h"

namespace snapsync {

class Backoff {
 public:
  // `options` must outlive it.
  explicit Backoff(const PumpOptions& options) : options_(options) {}

  // Something moved: short pauses again.
  void Reset() { pause_ = kFirst; }

  // Waits after `failed`, a lost connection, for the next attempt. Returns
  // `failed` if that would end more than `limit` after `since` (0: never), and
  // kConnection when it was interrupted.
  absl::Status Wait(const absl::Status& failed,
                    std::chrono::steady_clock::time_point since,
                    std::chrono::nanoseconds limit);

 private:
  static constexpr std::chrono::nanoseconds kFirst =
      std::chrono::milliseconds(200);
  static constexpr std::chrono::nanoseconds kLongest = std::chrono::seconds(10);

  const PumpOptions& options_;
  std::chrono::nanoseconds pause_ = kFirst;
};

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_BACKOFF_H_
