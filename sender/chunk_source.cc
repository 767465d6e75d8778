// SPDX-License-Identifier: Apache-2.0
#include "sender/chunk_source.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "common/base/aligned_buffer.h"
#include "common/base/mutex.h"
#include "common/base/status_macros.h"
#include "common/block/zeroes.h"

namespace snapsync {
namespace {

struct Batch {
  // A small plan needs no large buffer.
  explicit Batch(const Plan& plan)
      : buffer(std::min(ChunkSource::kBatchBytes, plan.changed_bytes())) {}
  AlignedBuffer buffer;
  std::vector<Chunk> chunks;
};

// Appends a piece, joined to the last one where that says the same.
void AppendPiece(std::vector<Piece>& pieces, const Piece& piece) {
  if (!pieces.empty() && pieces.back().kind == piece.kind &&
      pieces.back().offset + pieces.back().length == piece.offset) {
    pieces.back().length += piece.length;
  } else {
    pieces.push_back(piece);
  }
}

// Takes the zero runs out of the chunk whose data were just read to `data`:
// moves what is left together and says so in the pieces.
void TakeOutZeroes(Chunk& chunk, std::byte* data) {
  std::vector<Piece> pieces;
  const std::byte* from = data;
  std::byte* to = data;
  for (const Piece& planned : chunk.pieces) {
    if (planned.kind != PieceKind::kData) {
      AppendPiece(pieces, planned);
      continue;
    }
    const uint64_t end = planned.offset + planned.length;
    for (uint64_t at = planned.offset; at < end;) {
      const uint64_t grain_end = (at / kZeroGrainBytes + 1) * kZeroGrainBytes;
      const uint64_t length = std::min(grain_end, end) - at;
      const bool zero = IsZero({from, length});
      // More pieces than a chunk may have: the zeroes go as data. Each planned
      // piece that is left needs one piece, and one for what follows.
      const bool room = pieces.size() + 2 + chunk.pieces.size() < kChunkPieces;
      if (zero && room) {
        AppendPiece(pieces, {at, length, PieceKind::kZero});
      } else {
        if (to != from) std::memmove(to, from, length);
        to += length;
        AppendPiece(pieces, {at, length, PieceKind::kData});
      }
      from += length;
      at += length;
    }
  }
  chunk.pieces = std::move(pieces);
  chunk.data = {data, static_cast<size_t>(to - data)};
}

// Reads batch after batch, in order. Used by one thread at a time.
class BatchReader {
 public:
  BatchReader(BlockReader* reader, const Plan* plan, uint64_t first)
      : reader_(reader), cursor_(plan->At(first)), next_index_(first) {}

  // Fills `batch`; no chunks: the end.
  absl::Status Fill(Batch& batch) {
    batch.chunks.clear();
    std::vector<ReadOperation> reads;
    std::vector<std::byte*> data;
    std::byte* at = batch.buffer.data();
    for (uint64_t i = 0; i < ChunkSource::kBatchBytes / kChunkDataBytes; ++i) {
      Chunk chunk;
      chunk.pieces = cursor_.Next();
      if (chunk.pieces.empty()) break;
      chunk.index = next_index_++;
      data.push_back(at);
      for (const Piece& piece : chunk.pieces) {
        if (piece.kind != PieceKind::kData) continue;
        reads.push_back({piece.offset, {at, piece.length}});
        at += piece.length;
      }
      batch.chunks.push_back(std::move(chunk));
    }
    if (!reads.empty()) SNAPSYNC_RETURN_IF_ERROR(reader_->Read(reads));
    for (size_t i = 0; i < batch.chunks.size(); ++i) {
      TakeOutZeroes(batch.chunks[i], data[i]);
      batch.chunks[i].checksum = ChecksumOf(batch.chunks[i]);
    }
    return absl::OkStatus();
  }

 private:
  BlockReader* const reader_;
  Plan::Cursor cursor_;
  uint64_t next_index_;
};

class DirectChunkSource final : public ChunkSource {
 public:
  DirectChunkSource(BlockReader* reader, const Plan* plan, uint64_t first)
      : batches_(reader, plan, first), batch_(*plan) {}

  absl::StatusOr<const Chunk*> Next() override {
    if (used_ == batch_.chunks.size()) {
      SNAPSYNC_RETURN_IF_ERROR(batches_.Fill(batch_));
      used_ = 0;
      if (batch_.chunks.empty()) return nullptr;
    }
    return &batch_.chunks[used_++];
  }

 private:
  BatchReader batches_;
  Batch batch_;
  size_t used_ = 0;
};

class ReadAheadChunkSource final : public ChunkSource {
 public:
  ReadAheadChunkSource(BlockReader* reader, const Plan* plan, uint64_t first)
      : batches_(reader, plan, first) {
    for (size_t i = 0; i < kBatches; ++i) {
      empty_.push_back(std::make_unique<Batch>(*plan));
    }
    thread_ = std::thread([this] { ReadOn(); });
  }

  ~ReadAheadChunkSource() override {
    {
      MutexLock lock(&mutex_);
      stop_ = true;
    }
    thread_.join();
  }

  absl::StatusOr<const Chunk*> Next() override {
    if (current_ == nullptr || used_ == current_->chunks.size()) {
      MutexLock lock(&mutex_);
      if (current_ != nullptr) empty_.push_back(std::move(current_));
      const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return !full_.empty() || !status_.ok();
      };
      mutex_.Await(ready);
      if (full_.empty()) return status_;
      if (full_.front()->chunks.empty()) return nullptr;  // stays: the end
      current_ = std::move(full_.front());
      full_.pop_front();
      used_ = 0;
    }
    return &current_->chunks[used_++];
  }

 private:
  void ReadOn() {
    for (bool more = true; more;) {
      std::unique_ptr<Batch> batch;
      {
        MutexLock lock(&mutex_);
        const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
          return stop_ || !empty_.empty();
        };
        mutex_.Await(ready);
        if (stop_) return;
        batch = std::move(empty_.back());
        empty_.pop_back();
      }
      const absl::Status status = batches_.Fill(*batch);
      more = status.ok() && !batch->chunks.empty();
      MutexLock lock(&mutex_);
      status_ = status;
      if (status.ok()) full_.push_back(std::move(batch));
    }
  }

  BatchReader batches_;  // used by thread_ alone
  std::thread thread_;

  // Used by the caller's thread alone.
  std::unique_ptr<Batch> current_;
  size_t used_ = 0;

  Mutex mutex_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<Batch>> empty_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::unique_ptr<Batch>> full_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

std::unique_ptr<ChunkSource> MakeChunkSource(BlockReader* reader,
                                             const Plan* plan, uint64_t first,
                                             bool read_ahead) {
  if (read_ahead) {
    return std::make_unique<ReadAheadChunkSource>(reader, plan, first);
  }
  return std::make_unique<DirectChunkSource>(reader, plan, first);
}

}  // namespace snapsync
