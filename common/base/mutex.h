// SPDX-License-Identifier: Apache-2.0
//
// A mutex whose waiters say what they wait for, in the manner of absl::Mutex.
// Not that one, since distributions build Abseil without ThreadSanitizer: it
// cannot see absl::Mutex there, and reports a race at everything that such a
// mutex guards. Clang checks the annotations.
//
// A condition is evaluated with the mutex held, again after each Unlock() by
// another thread: it must depend on nothing that the mutex does not guard.
#ifndef SNAPSYNC_COMMON_BASE_MUTEX_H_
#define SNAPSYNC_COMMON_BASE_MUTEX_H_

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "absl/base/thread_annotations.h"

namespace snapsync {

class ABSL_LOCKABLE Mutex {
 public:
  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { mutex_.lock(); }
  void Unlock() ABSL_UNLOCK_FUNCTION() {
    // Before the unlock: a waiter may destroy this as soon as it can go on.
    if (waiters_ > 0) changed_.notify_all();
    mutex_.unlock();
  }

  // Both release the mutex while they wait, and hold it again at the end.
  template <typename Condition>
  void Await(const Condition& condition) ABSL_EXCLUSIVE_LOCKS_REQUIRED(this) {
    Wait([&](auto& lock) {
      changed_.wait(lock, condition);
      return true;
    });
  }
  // Whether the condition held before the time was over.
  template <typename Condition>
  bool AwaitFor(std::chrono::nanoseconds time, const Condition& condition)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(this) {
    return Wait(
        [&](auto& lock) { return changed_.wait_for(lock, time, condition); });
  }

 private:
  template <typename Waiting>
  bool Wait(const Waiting& waiting) {
    // What is changed before this waits may matter to another waiter.
    if (waiters_ > 0) changed_.notify_all();
    ++waiters_;
    std::unique_lock lock(mutex_, std::adopt_lock);
    const bool result = waiting(lock);
    lock.release();
    --waiters_;
    return result;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  int waiters_ = 0;  // guarded by mutex_
};

class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex* mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex)
      : mutex_(mutex) {
    mutex_->Lock();
  }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;
  ~MutexLock() ABSL_UNLOCK_FUNCTION() { mutex_->Unlock(); }

 private:
  Mutex* const mutex_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BASE_MUTEX_H_
