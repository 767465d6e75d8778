// SPDX-License-Identifier: Apache-2.0
#include "agent/read_back.h"

#include <algorithm>
#include <string>

#include "common/base/aligned_buffer.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/block/zeroes.h"

namespace snapsync {
namespace {

// Several chunks at once keep a disk busy.
constexpr uint64_t kBatchBytes = 4 * kChunkDataBytes;
// Of each end of what was zeroed.
constexpr uint64_t kEndBytes = kZeroGrainBytes;

absl::Status Wrong(const BlockWriter& writer, uint64_t offset) {
  return Error(Reason::kVerification,
               writer.name() + ": what was written at offset " +
                   std::to_string(offset) +
                   " is not what is read there; the disk, what is between, or "
                   "memory is damaged. Nothing of it counts as synced");
}

// Reads in batches that fit the buffer.
class Batches {
 public:
  explicit Batches(BlockWriter& writer, uint64_t bytes)
      : writer_(writer), buffer_(std::min(bytes, kBatchBytes)) {}

  absl::Status Data(std::vector<Chunk>& chunks) {
    for (auto next = chunks.begin(); next != chunks.end();) {
      const auto first = next;
      uint64_t used = 0;
      std::vector<ReadOperation> reads;
      for (; next != chunks.end() && used + BytesOf(*next) <= kBatchBytes;
           ++next) {
        std::byte* const begin = buffer_.data() + used;
        for (const Piece& piece : next->pieces) {
          if (piece.kind != PieceKind::kData) continue;
          reads.push_back(
              {piece.offset, {buffer_.data() + used, piece.length}});
          used += piece.length;
        }
        next->data = {begin, buffer_.data() + used};
      }
      SNAPSYNC_RETURN_IF_ERROR(writer_.ReadBack(reads));
      for (auto chunk = first; chunk != next; ++chunk) {
        if (ChecksumOf(*chunk) != chunk->checksum) {
          return Wrong(writer_, chunk->pieces.front().offset);
        }
      }
    }
    return absl::OkStatus();
  }

  absl::Status Zeroes(const std::vector<Chunk>& chunks) {
    for (const Chunk& chunk : chunks) {
      for (const Piece& piece : chunk.pieces) {
        if (piece.kind == PieceKind::kData) continue;
        const uint64_t end = std::min(piece.length, kEndBytes);
        SNAPSYNC_RETURN_IF_ERROR(AddZero({piece.offset, end}));
        const uint64_t rest = std::min(piece.length - end, kEndBytes);
        SNAPSYNC_RETURN_IF_ERROR(
            AddZero({piece.offset + piece.length - rest, rest}));
      }
    }
    return CheckZeroes();
  }

  static uint64_t BytesOf(const Chunk& chunk) {
    uint64_t bytes = 0;
    for (const Piece& piece : chunk.pieces) {
      if (piece.kind == PieceKind::kData) bytes += piece.length;
    }
    return bytes;
  }

 private:
  absl::Status AddZero(Extent extent) {
    if (extent.length == 0) return absl::OkStatus();
    if (used_ + extent.length > buffer_.size()) {
      SNAPSYNC_RETURN_IF_ERROR(CheckZeroes());
    }
    zeroes_.push_back({extent.offset, {buffer_.data() + used_, extent.length}});
    used_ += extent.length;
    return absl::OkStatus();
  }

  absl::Status CheckZeroes() {
    SNAPSYNC_RETURN_IF_ERROR(writer_.ReadBack(zeroes_));
    for (const ReadOperation& read : zeroes_) {
      if (!IsZero(read.data)) return Wrong(writer_, read.offset);
    }
    zeroes_.clear();
    used_ = 0;
    return absl::OkStatus();
  }

  BlockWriter& writer_;
  AlignedBuffer buffer_;
  std::vector<ReadOperation> zeroes_;
  uint64_t used_ = 0;  // bytes of buffer_, by zeroes_
};

}  // namespace

absl::Status ReadBack(BlockWriter& writer, std::vector<Chunk>& chunks) {
  uint64_t bytes = kEndBytes;
  for (const Chunk& chunk : chunks) bytes += Batches::BytesOf(chunk);
  Batches batches(writer, bytes);
  SNAPSYNC_RETURN_IF_ERROR(batches.Data(chunks));
  return batches.Zeroes(chunks);
}

}  // namespace snapsync
