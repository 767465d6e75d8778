// SPDX-License-Identifier: Apache-2.0
//
// Ends calls in which nothing has moved for a while, on either side of a
// connection: gRPC's own deadlines count from the start of a call, and a stream
// may rightly take hours.
//
// Thread-safe. Must outlive its calls.
#ifndef SNAPSYNC_COMMON_WIRE_CALL_WATCHDOG_H_
#define SNAPSYNC_COMMON_WIRE_CALL_WATCHDOG_H_

#include <chrono>
#include <functional>
#include <set>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "common/base/mutex.h"

namespace snapsync::wire {

class CallWatchdog {
 public:
  // 0: never.
  explicit CallWatchdog(std::chrono::seconds timeout);
  ~CallWatchdog();
  CallWatchdog(const CallWatchdog&) = delete;
  CallWatchdog& operator=(const CallWatchdog&) = delete;

  // A call under way, as long as the object lives.
  class Call {
   public:
    // `cancel` ends the call; it is called at most a few times, from another
    // thread, while the object lives.
    Call(CallWatchdog* watchdog, std::function<void()> cancel);
    ~Call();
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

    void Moved();
    bool timed_out() const;

   private:
    friend class CallWatchdog;
    CallWatchdog* const watchdog_;
    const std::function<void()> cancel_;
    std::chrono::steady_clock::time_point last_move_;
    bool timed_out_ = false;  // this and last_move_: under watchdog_->mutex_
  };

  // Ends all calls, and those that are begun later.
  void CancelAll();

 private:
  void Watch();

  const std::chrono::seconds timeout_;
  mutable Mutex mutex_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<Call*> calls_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace snapsync::wire

#endif  // SNAPSYNC_COMMON_WIRE_CALL_WATCHDOG_H_
