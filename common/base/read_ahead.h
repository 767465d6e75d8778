// SPDX-License-Identifier: Apache-2.0
//
// Batches that a thread of its own fills while the caller uses the ones before.
// Memory is bounded by the batches that it is given.
//
// Next() is used by one thread at a time. What `fill` uses must outlive it.
#ifndef SNAPSYNC_COMMON_BASE_READ_AHEAD_H_
#define SNAPSYNC_COMMON_BASE_READ_AHEAD_H_

#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "common/base/status_macros.h"

namespace snapsync {

template <typename Batch>
class ReadAhead {
 public:
  // Fills a batch that was used before; false: there is nothing left. Calls
  // come one after the other.
  using Fill = std::function<absl::StatusOr<bool>(Batch&)>;

  // `in_thread` false: Next() fills, in the caller's thread (for the
  // simulation, which has one); one batch is enough then.
  ReadAhead(std::vector<std::unique_ptr<Batch>> batches, Fill fill,
            bool in_thread)
      : fill_(std::move(fill)), empty_(std::move(batches)) {
    if (in_thread) thread_ = std::thread([this] { FillOn(); });
  }
  ~ReadAhead() {
    {
      MutexLock lock(&mutex_);
      stop_ = true;
    }
    if (thread_.joinable()) thread_.join();
  }
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // The next batch, null at the end. It stays valid until the next call.
  absl::StatusOr<Batch*> Next() {
    const bool in_thread = thread_.joinable();
    MutexLock lock(&mutex_);
    if (current_ != nullptr) empty_.push_back(std::move(current_));
    if (!in_thread) FillNext();
    const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return !full_.empty() || ended_;
    };
    mutex_.Await(ready);
    if (!full_.empty()) {
      current_ = std::move(full_.front());
      full_.pop_front();
      return current_.get();
    }
    if (!status_.ok()) return status_;
    return nullptr;
  }

 private:
  void FillOn() {
    for (;;) {
      MutexLock lock(&mutex_);
      const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stop_ || !empty_.empty();
      };
      mutex_.Await(ready);
      if (stop_) return;
      FillNext();
      if (ended_) return;
    }
  }

  // Requires a batch in empty_. Fills it without the mutex.
  void FillNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (ended_) return;
    std::unique_ptr<Batch> batch = std::move(empty_.back());
    empty_.pop_back();
    mutex_.Unlock();
    const absl::StatusOr<bool> filled = fill_(*batch);
    mutex_.Lock();
    if (filled.ok() && *filled) {
      full_.push_back(std::move(batch));
    } else {
      empty_.push_back(std::move(batch));
      status_ = filled.status();
      ended_ = true;
    }
  }

  const Fill fill_;

  Mutex mutex_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;  // full_ is the rest
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<Batch> current_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<Batch>> empty_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::unique_ptr<Batch>> full_ ABSL_GUARDED_BY(mutex_);

  std::thread thread_;  // last: it uses the others
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BASE_READ_AHEAD_H_
