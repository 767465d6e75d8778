// SPDX-License-Identifier: Apache-2.0
//
// One opening of one plan into one target: takes segments of chunks, writes
// them, and moves the watermark. Knows neither gRPC nor what a target is; the
// simulation drives it over simulated disks.
//
// Invariants:
//   - the journal's watermark never promises data that was not flushed before,
//   - the sender hears of a watermark only after the journal was flushed,
//   - after a failed write or flush nothing more is written or acknowledged
//     (the descriptor is given up; opening again goes on at the journal),
//   - after Fence() returned, nothing is written any more.
//
// Thread-safe. While one segment is flushed the next one is received: two
// threads, each with a Segment of its own.
#ifndef SNAPSYNC_AGENT_SESSION_H_
#define SNAPSYNC_AGENT_SESSION_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <set>
#include <shared_mutex>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "agent/batch_writer.h"
#include "agent/journal.h"
#include "agent/manifest_log.h"
#include "common/base/mutex.h"
#include "common/block/block_device.h"
#include "common/transfer/chunk.h"
#include "common/transfer/session_protocol.h"

namespace snapsync {

class Session {
 public:
  // Chunks that one segment may hold, whatever the sender wants.
  static constexpr uint64_t kMaxSegmentChunks = 4096;

  class Segment;

  struct Options {
    uint64_t source_size = 0;  // bytes, which the writer takes
    uint64_t chunk_count = 0;
    // The watermark moves only past what was read back, and is what was sent.
    bool verify = true;
    bool threads = true;  // write with threads of its own
    // How long a segment waits for the one before it to begin: streams that
    // were opened one after the other may come in another order.
    std::chrono::seconds patience{10};
  };

  // The watermark is the journal's. `manifest_log` may be null: then there will
  // be no manifest.
  Session(std::unique_ptr<BlockWriter> writer, std::unique_ptr<Journal> journal,
          std::unique_ptr<ManifestLog> manifest_log, const Options& options);

  // Begins a run of chunks that starts with number `first`: at the watermark,
  // or where a segment under way will have moved it by then. The session must
  // outlive the segment.
  absl::StatusOr<std::unique_ptr<Segment>> StartSegment(uint64_t first);

  SegmentAck progress() const;
  // A segment is being received or flushed.
  bool active() const;
  // OK, or why nothing more is taken.
  absl::Status status() const;

  // Checks the whole session against what the sender says it was.
  absl::Status CheckComplete(uint64_t chunk_count, const Digest256& digest);

  // Ends the session's right to write, for `reason`; waits for a write that is
  // under way.
  void Fence(const absl::Status& reason);

 private:
  // An error is in status().
  void WriteBatch(std::span<const WriteOperation> writes,
                  const ExtentList& zeroes);
  // Returns when all before chunk `first` is durable; kConnection when it will
  // not be.
  absl::StatusOr<SegmentAck> AwaitTurn(uint64_t first);
  absl::StatusOr<SegmentAck> MakeDurable(uint64_t first,
                                         std::vector<Chunk>& chunks,
                                         const CellChanges& cells);
  // Gives the log up when it fails.
  void KeepInLog(uint64_t first, uint64_t end, const CellChanges& cells);
  void Leave(uint64_t first);
  absl::Status Fail(const absl::Status& status);

  // Constant after construction.
  const std::unique_ptr<BlockWriter> writer_;  // thread-safe by itself
  const Options options_;
  const bool for_manifest_;  // what is written is hashed by cells

  // Held shared by each write and flush, exclusively by Fence().
  std::shared_mutex writing_;

  mutable Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::set<uint64_t> in_flight_ ABSL_GUARDED_BY(mutex_);  // first chunks
  // Of the segments that ended without being durable, the lowest first chunk.
  uint64_t lost_ ABSL_GUARDED_BY(mutex_) = UINT64_MAX;
  SegmentAck progress_ ABSL_GUARDED_BY(mutex_);

  // Used only by the segment whose turn it is (MakeDurable).
  const std::unique_ptr<Journal> journal_;
  std::unique_ptr<ManifestLog> manifest_log_;
};

// Used by one thread at a time. Destroyed before Finish() returned OK, it
// leaves the watermark where it was.
class Session::Segment {
 public:
  ~Segment();
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  // Checks the chunk and writes it, now or with the next ones. An error of an
  // earlier write may be returned by a later call, by Finish() at the latest.
  absl::Status Add(const Chunk& chunk);

  // Writes what is left, waits for the segments before this one, and makes it
  // durable: flush, journal, flush.
  absl::StatusOr<SegmentAck> Finish();

 private:
  friend class Session;
  Segment(Session* session, uint64_t first);
  // As the writer wants it.
  BatchWriter::Options BatchOptions() const;

  Session* const session_;
  const uint64_t first_;
  bool left_ = false;
  std::vector<Chunk> chunks_;  // that were added, without their data
  CellChanges cells_;
  BatchWriter batches_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_SESSION_H_
