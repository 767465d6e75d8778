// SPDX-License-Identifier: Apache-2.0
//
// Rings for any number of threads: a ring is used by one thread at a time, and
// as many are made as there are threads at work at once. They are kept for the
// next batch.
//
// Thread-safe.
#ifndef SNAPSYNC_COMMON_BLOCK_URING_POOL_H_
#define SNAPSYNC_COMMON_BLOCK_URING_POOL_H_

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "common/base/mutex.h"
#include "common/base/status_macros.h"
#include "common/block/uring.h"

namespace snapsync {

class UringPool {
 public:
  // As Uring::Run().
  absl::Status Run(Uring::Direction direction, int fd, const std::string& name,
                   std::span<Uring::Operation> operations) {
    SNAPSYNC_ASSIGN_OR_RETURN(std::unique_ptr<Uring> ring, Take());
    const absl::Status status = ring->Run(direction, fd, name, operations);
    MutexLock lock(&mutex_);
    idle_.push_back(std::move(ring));
    return status;
  }

 private:
  absl::StatusOr<std::unique_ptr<Uring>> Take() {
    {
      MutexLock lock(&mutex_);
      if (!idle_.empty()) {
        auto ring = std::move(idle_.back());
        idle_.pop_back();
        return ring;
      }
    }
    return Uring::Create();
  }

  Mutex mutex_;
  std::vector<std::unique_ptr<Uring>> idle_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BLOCK_URING_POOL_H_
