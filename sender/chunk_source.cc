// SPDX-License-Identifier: Apache-2.0
#include "sender/chunk_source.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "common/base/aligned_buffer.h"
#include "common/base/read_ahead.h"
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

  // False: the end.
  absl::StatusOr<bool> Fill(Batch& batch) {
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
    return !batch.chunks.empty();
  }

 private:
  BlockReader* const reader_;
  Plan::Cursor cursor_;
  uint64_t next_index_;
};

std::vector<std::unique_ptr<Batch>> MakeBatches(const Plan& plan,
                                                size_t count) {
  std::vector<std::unique_ptr<Batch>> batches;
  for (size_t i = 0; i < count; ++i) {
    batches.push_back(std::make_unique<Batch>(plan));
  }
  return batches;
}

class BatchedChunkSource final : public ChunkSource {
 public:
  BatchedChunkSource(BlockReader* reader, const Plan* plan, uint64_t first,
                     bool read_ahead)
      : reader_(reader, plan, first),
        batches_(
            MakeBatches(*plan, read_ahead ? kBatches : 1),
            [this](Batch& batch) { return reader_.Fill(batch); }, read_ahead) {}

  absl::StatusOr<const Chunk*> Next() override {
    if (batch_ == nullptr || used_ == batch_->chunks.size()) {
      batch_ = nullptr;
      SNAPSYNC_ASSIGN_OR_RETURN(batch_, batches_.Next());
      used_ = 0;
      if (batch_ == nullptr) return nullptr;
    }
    return &batch_->chunks[used_++];
  }

 private:
  BatchReader reader_;
  const Batch* batch_ = nullptr;
  size_t used_ = 0;
  ReadAhead<Batch> batches_;  // last: its thread uses reader_
};

}  // namespace

std::unique_ptr<ChunkSource> MakeChunkSource(BlockReader* reader,
                                             const Plan* plan, uint64_t first,
                                             bool read_ahead) {
  return std::make_unique<BatchedChunkSource>(reader, plan, first, read_ahead);
}

}  // namespace snapsync
