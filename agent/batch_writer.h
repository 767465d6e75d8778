// SPDX-License-Identifier: Apache-2.0
//
// Collects the pieces of chunks in batches, and writes them with threads of its
// own while the next ones are received: a disk that is never without work is
// half as fast again as one that waits for the network in between.
//
// Pieces that ascend are written in any order. One that goes back (no plan of
// ours does, a peer's may) waits for all before it.
//
// Used by one thread at a time.
#ifndef SNAPSYNC_AGENT_BATCH_WRITER_H_
#define SNAPSYNC_AGENT_BATCH_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "common/base/aligned_buffer.h"
#include "common/base/mutex.h"
#include "common/base/task_pool.h"
#include "common/base/units.h"
#include "common/block/block_device.h"
#include "common/block/extent.h"

namespace snapsync {

class BatchWriter {
 public:
  // Data in one batch. With three on their way and the one being filled: what
  // a segment holds in memory.
  static constexpr uint64_t kBatchBytes = 2 * kMiB;
  static constexpr size_t kThreads = 3;

  // Called by the threads, several at once. Errors are its own to keep.
  using Write = std::function<void(std::span<const WriteOperation> writes,
                                   const ExtentList& zeroes)>;

  struct Options {
    // 0: Submit() writes before it returns.
    size_t threads = kThreads;
    // Else data are used where they are, until Submit() returns: 0 threads.
    bool copy = true;
    uint64_t most_bytes = kBatchBytes;  // of data, of all that is to come
  };

  BatchWriter(Write write, const Options& options);
  // Waits for what was submitted; what was not is not written.
  ~BatchWriter() = default;
  BatchWriter(const BatchWriter&) = delete;
  BatchWriter& operator=(const BatchWriter&) = delete;

  // At most kBatchBytes.
  void Add(uint64_t offset, std::span<const std::byte> data);
  void AddZeroes(Extent extent);

  // Sends what was added on its way.
  void Submit();
  // Submits, and waits until all is written (not yet durable).
  void Drain();

 private:
  struct Batch {
    AlignedBuffer buffer;
    uint64_t used = 0;  // bytes of data
    std::vector<WriteOperation> writes;
    ExtentList zeroes;
  };

  // Makes filling_ one that has room.
  void TakeBatch(uint64_t offset, uint64_t data_bytes);
  void Run(Batch* batch);

  const Write write_;
  const Options options_;
  uint64_t end_ = 0;  // of the last piece
  std::unique_ptr<Batch> filling_;

  Mutex mutex_;
  size_t in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::unique_ptr<Batch>> idle_ ABSL_GUARDED_BY(mutex_);

  TaskPool pool_;  // last: its threads use the others
};

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_BATCH_WRITER_H_
