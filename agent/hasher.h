// SPDX-License-Identifier: Apache-2.0
//
// Hashes a target for a sender that compares (common/transfer/block_hashes.h),
// until it is told to let the target go.
//
// Thread-safe: one thread hashes, another one may fence.
#ifndef SNAPSYNC_AGENT_HASHER_H_
#define SNAPSYNC_AGENT_HASHER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "common/transfer/block_hashes.h"

namespace snapsync {

class Hasher {
 public:
  // Of `size` bytes, from block `first_block` on. `read_ahead`: in a thread of
  // its own.
  Hasher(std::unique_ptr<BlockReader> reader, uint64_t size,
         uint64_t first_block, bool read_ahead);

  // The hashes of the next blocks, in order; none at the end.
  absl::StatusOr<std::vector<Digest256>> Next();

  // Closes the target; waits for a read that is under way. Next() returns
  // `reason` from then on.
  void Fence(const absl::Status& reason);
  // Because the target is compared again or written to: kConnection.
  void Fence();

 private:
  Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<BlockReader> reader_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<BlockHasher> blocks_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_HASHER_H_
