// SPDX-License-Identifier: Apache-2.0
//
// A few threads that run tasks in the order in which they were given; several
// at once, so they end in any order. A task reports by what it captured.
//
// Thread-safe. The destructor runs what was given, and waits for it.
#ifndef SNAPSYNC_COMMON_BASE_TASK_POOL_H_
#define SNAPSYNC_COMMON_BASE_TASK_POOL_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "common/base/mutex.h"

namespace snapsync {

class TaskPool {
 public:
  using Task = std::function<void()>;

  // 0 threads: Run() runs the task itself before it returns.
  explicit TaskPool(size_t threads) {
    for (size_t i = 0; i < threads; ++i) {
      threads_.emplace_back([this] { RunTasks(); });
    }
  }
  ~TaskPool() {
    {
      MutexLock lock(&mutex_);
      ended_ = true;
    }
    for (std::thread& thread : threads_) thread.join();
  }
  TaskPool(const TaskPool&) = delete;
  TaskPool& operator=(const TaskPool&) = delete;

  void Run(Task task) {
    if (threads_.empty()) {
      task();
      return;
    }
    MutexLock lock(&mutex_);
    tasks_.push_back(std::move(task));
  }

 private:
  void RunTasks() {
    for (;;) {
      Task task;
      {
        MutexLock lock(&mutex_);
        const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
          return ended_ || !tasks_.empty();
        };
        mutex_.Await(ready);
        if (tasks_.empty()) return;
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      task();
    }
  }

  Mutex mutex_;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<Task> tasks_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;  // last: they use the others
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BASE_TASK_POOL_H_
