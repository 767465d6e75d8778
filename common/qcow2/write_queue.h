// SPDX-License-Identifier: Apache-2.0
//
// Writes behind: what is added is copied into large batches, which threads of
// the queue write while the caller goes on. Memory is bounded by the batches.
//
// Requires: no host cluster is added twice without a Wait() in between (the
// batches are not ordered).
//
// Add(), Submit() and Read() are used by one thread at a time, Wait() by any,
// beside them. After an error all of them return it.
#ifndef SNAPSYNC_COMMON_QCOW2_WRITE_QUEUE_H_
#define SNAPSYNC_COMMON_QCOW2_WRITE_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "common/base/aligned_buffer.h"
#include "common/base/mutex.h"
#include "common/base/task_pool.h"
#include "common/base/units.h"
#include "common/block/host_folder.h"

namespace snapsync::qcow2 {

class WriteQueue {
 public:
  // One write of this size keeps a disk busy for a millisecond or more; six are
  // what a fast disk wants to see, and the next one to be filled.
  static constexpr uint64_t kBatchBytes = 4 * kMiB;
  static constexpr size_t kBatches = 6;
  static constexpr size_t kThreads = 4;

  // `file` must outlive it. 0 threads: Submit() writes.
  WriteQueue(GrowingFile* file, size_t threads);
  // Waits for what is on its way.
  ~WriteQueue() = default;
  WriteQueue(const WriteQueue&) = delete;
  WriteQueue& operator=(const WriteQueue&) = delete;

  // Offset and length: multiples of GrowingFile::kAlignment, at most
  // kBatchBytes.
  absl::Status Add(uint64_t offset, std::span<const std::byte> data);

  // Sends what was added on its way. The number is for Wait().
  uint64_t Submit();
  // Until all that was submitted up to `number` is written (not yet durable).
  absl::Status Wait(uint64_t number);

  // Reads from the file, after waiting for a write of the same place. Offset
  // and length as for Add(); `data` is an AlignedBuffer's.
  absl::Status Read(uint64_t offset, std::span<std::byte> data);

 private:
  struct Batch {
    AlignedBuffer buffer = AlignedBuffer(kBatchBytes);
    uint64_t used = 0;
    std::vector<WriteOperation> writes;

    bool Touches(uint64_t offset, uint64_t length) const;
  };

  void Write(uint64_t number, Batch* batch);

  GrowingFile* const file_;

  std::unique_ptr<Batch> filling_;
  uint64_t submitted_ = 0;  // batches

  Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  size_t made_ ABSL_GUARDED_BY(mutex_) = 0;  // batches
  std::vector<std::unique_ptr<Batch>> idle_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, std::unique_ptr<Batch>> in_flight_ ABSL_GUARDED_BY(mutex_);

  TaskPool pool_;  // last: its threads use the others
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_WRITE_QUEUE_H_
