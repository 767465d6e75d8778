// SPDX-License-Identifier: Apache-2.0
#include "common/wire/call_watchdog.h"

namespace snapsync::wire {

using Clock = std::chrono::steady_clock;

CallWatchdog::CallWatchdog(std::chrono::seconds timeout)
    : timeout_(timeout), thread_([this] { Watch(); }) {}

CallWatchdog::~CallWatchdog() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
  }
  thread_.join();
}

CallWatchdog::Call::Call(CallWatchdog* watchdog, std::function<void()> cancel)
    : watchdog_(watchdog), cancel_(std::move(cancel)) {
  MutexLock lock(&watchdog_->mutex_);
  last_move_ = Clock::now();
  watchdog_->calls_.insert(this);
  if (watchdog_->cancelled_) cancel_();
}

CallWatchdog::Call::~Call() {
  MutexLock lock(&watchdog_->mutex_);
  watchdog_->calls_.erase(this);
}

void CallWatchdog::Call::Moved() {
  MutexLock lock(&watchdog_->mutex_);
  last_move_ = Clock::now();
}

bool CallWatchdog::Call::timed_out() const {
  MutexLock lock(&watchdog_->mutex_);
  return timed_out_;
}

void CallWatchdog::CancelAll() {
  MutexLock lock(&mutex_);
  cancelled_ = true;
  for (Call* call : calls_) call->cancel_();
}

void CallWatchdog::Watch() {
  MutexLock lock(&mutex_);
  const auto stopped = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stop_;
  };
  while (!mutex_.AwaitFor(std::chrono::milliseconds(250), stopped)) {
    if (timeout_.count() == 0) continue;
    const Clock::time_point now = Clock::now();
    for (Call* call : calls_) {
      if (call->timed_out_ || now - call->last_move_ < timeout_) continue;
      call->timed_out_ = true;
      call->cancel_();
    }
  }
}

}  // namespace snapsync::wire
