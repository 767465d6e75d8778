// SPDX-License-Identifier: Apache-2.0
//
// The chunks of a plan, read from the source: many reads in flight, zero blocks
// taken out, checksums made. Memory is bounded by kBatches × kBatchBytes,
// whatever the size of the plan.
//
// Used by one thread at a time. The reader and the plan must outlive it.
#ifndef SNAPSYNC_SENDER_CHUNK_SOURCE_H_
#define SNAPSYNC_SENDER_CHUNK_SOURCE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "common/block/block_device.h"
#include "common/transfer/chunk.h"
#include "common/transfer/plan.h"

namespace snapsync {

class ChunkSource {
 public:
  static constexpr uint64_t kBatchBytes = 4 * kMiB;
  static constexpr size_t kBatches = 4;

  virtual ~ChunkSource() = default;

  // The next chunk, or null at the end of the plan. It stays valid until the
  // next call. A zero piece is kZero where the source read as zeroes, kGone
  // where it is not mapped.
  virtual absl::StatusOr<const Chunk*> Next() = 0;
};

// Starts at chunk number `first`. `read_ahead`: a thread of its own reads the
// next batches while the caller sends; without it everything happens in Next()
// (for the simulation, which has one thread).
std::unique_ptr<ChunkSource> MakeChunkSource(BlockReader* reader,
                                             const Plan* plan, uint64_t first,
                                             bool read_ahead);

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_CHUNK_SOURCE_H_
