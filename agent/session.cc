// SPDX-License-Identifier: Apache-2.0
#include "agent/session.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <utility>

#include "agent/read_back.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace snapsync {

Session::Session(std::unique_ptr<BlockWriter> writer,
                 std::unique_ptr<Journal> journal, uint64_t source_size,
                 uint64_t chunk_count, bool verify)
    : writer_(std::move(writer)),
      source_size_(source_size),
      chunk_count_(chunk_count),
      verify_(verify),
      progress_{journal->last().watermark, journal->last().digest},
      journal_(std::move(journal)) {}

absl::StatusOr<std::unique_ptr<Session::Segment>> Session::StartSegment(
    uint64_t first) {
  MutexLock lock(&mutex_);
  if (!status_.ok()) return status_;
  if (first < progress_.watermark || first >= chunk_count_ ||
      in_flight_.contains(first)) {
    return Error(Reason::kConnection,
                 "segment at chunk " + std::to_string(first) +
                     " is out of turn: the watermark is " +
                     std::to_string(progress_.watermark) + " of " +
                     std::to_string(chunk_count_));
  }
  in_flight_.insert(first);
  return std::unique_ptr<Segment>(new Segment(this, first));
}

SegmentAck Session::progress() const {
  MutexLock lock(&mutex_);
  return progress_;
}

bool Session::active() const {
  MutexLock lock(&mutex_);
  return !in_flight_.empty();
}

absl::Status Session::status() const {
  MutexLock lock(&mutex_);
  return status_;
}

absl::Status Session::CheckComplete(uint64_t chunk_count,
                                    const Digest256& digest) {
  MutexLock lock(&mutex_);
  if (!status_.ok()) return status_;
  if (chunk_count != chunk_count_ || progress_.watermark != chunk_count_ ||
      !in_flight_.empty()) {
    return Error(
        Reason::kVerification,
        "the session is not complete: " + std::to_string(progress_.watermark) +
            " of " + std::to_string(chunk_count_) +
            " chunks are durable, the sender says it sent " +
            std::to_string(chunk_count));
  }
  if (digest != progress_.digest) {
    return Error(Reason::kVerification,
                 "the digest over all chunks is not the sender's: what "
                 "arrived is not what was sent");
  }
  return absl::OkStatus();
}

void Session::Fence(const absl::Status& reason) {
  Fail(reason).IgnoreError();
  // No write starts any more; those that did are waited for.
  const std::unique_lock writes_ended(writing_);
}

absl::Status Session::Fail(const absl::Status& status) {
  MutexLock lock(&mutex_);
  if (status_.ok()) status_ = status;
  return status;
}

absl::Status Session::WriteBatch(std::span<const WriteOperation> writes,
                                 const ExtentList& zeroes) {
  const std::shared_lock writing(writing_);
  SNAPSYNC_RETURN_IF_ERROR(status());
  if (!writes.empty()) {
    if (absl::Status s = writer_->Write(writes); !s.ok()) return Fail(s);
  }
  for (const Extent& extent : zeroes.extents()) {
    if (absl::Status s = writer_->Zero(extent); !s.ok()) return Fail(s);
  }
  return absl::OkStatus();
}

absl::StatusOr<SegmentAck> Session::MakeDurable(uint64_t first,
                                                std::vector<Chunk>& chunks) {
  SegmentAck ack;
  {
    MutexLock lock(&mutex_);
    const auto my_turn = [this, first]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return !status_.ok() || *in_flight_.begin() == first;
    };
    mutex_.Await(my_turn);
    if (!status_.ok()) return status_;
    if (progress_.watermark != first) {
      return Error(Reason::kConnection, "the segment before chunk " +
                                            std::to_string(first) +
                                            " did not arrive whole");
    }
    ack = progress_;
  }
  ack.watermark += chunks.size();
  for (const Chunk& chunk : chunks) {
    ack.digest = ExtendSessionDigest(ack.digest, chunk.checksum);
  }
  const std::shared_lock writing(writing_);
  SNAPSYNC_RETURN_IF_ERROR(status());
  // The order is the promise: data, then the watermark that speaks of it.
  if (absl::Status s = writer_->Flush(); !s.ok()) return Fail(s);
  if (verify_) {
    if (absl::Status s = ReadBack(*writer_, chunks); !s.ok()) return Fail(s);
  }
  if (absl::Status s = journal_->Append({ack.watermark, ack.digest}); !s.ok()) {
    return Fail(s);
  }
  MutexLock lock(&mutex_);
  progress_ = ack;
  return ack;
}

void Session::Leave(uint64_t first) {
  MutexLock lock(&mutex_);
  in_flight_.erase(first);
}

Session::Segment::Segment(Session* session, uint64_t first)
    : session_(session), first_(first) {}

Session::Segment::~Segment() {
  if (!left_) session_->Leave(first_);
}

absl::Status Session::Segment::Add(const Chunk& chunk) {
  const uint64_t expected = first_ + chunks_.size();
  if (chunk.index != expected || expected >= session_->chunk_count_ ||
      chunks_.size() >= kMaxSegmentChunks) {
    return Error(Reason::kOther, "chunk " + std::to_string(chunk.index) +
                                     " from the sender, expected " +
                                     std::to_string(expected));
  }
  SNAPSYNC_RETURN_IF_ERROR(CheckChunk(chunk, session_->source_size_));
  if (buffered_ + chunk.data.size() > kBatchBytes) {
    SNAPSYNC_RETURN_IF_ERROR(WriteOut());
  }
  const bool copy = !session_->writer_->copies();
  if (copy && buffer_.size() == 0 && !chunk.data.empty()) {
    // A segment of zeroes needs none, a small session no large one.
    buffer_ = AlignedBuffer(std::min(kBatchBytes / kChunkDataBytes,
                                     session_->chunk_count_ - first_) *
                            kChunkDataBytes);
  }
  const std::byte* from = chunk.data.data();
  for (const Piece& piece : chunk.pieces) {
    if (piece.kind != PieceKind::kData) {
      // A plan is ascending, but a peer's chunks may not be.
      if (!zeroes_.empty() && piece.offset < zeroes_.extents().back().end()) {
        SNAPSYNC_RETURN_IF_ERROR(WriteOut());
      }
      zeroes_.Append({piece.offset, piece.length});
      continue;
    }
    const std::byte* data = from;
    if (copy) {
      data = static_cast<const std::byte*>(
          std::memcpy(buffer_.data() + buffered_, from, piece.length));
    }
    if (!writes_.empty() &&
        writes_.back().offset + writes_.back().data.size() == piece.offset) {
      writes_.back().data = {writes_.back().data.data(),
                             writes_.back().data.size() + piece.length};
    } else {
      writes_.push_back({piece.offset, {data, piece.length}});
    }
    from += piece.length;
    buffered_ += piece.length;
  }
  chunks_.push_back({chunk.index, chunk.pieces, {}, chunk.checksum});
  return copy ? absl::OkStatus() : WriteOut();
}

absl::Status Session::Segment::WriteOut() {
  SNAPSYNC_RETURN_IF_ERROR(session_->WriteBatch(writes_, zeroes_));
  writes_.clear();
  zeroes_ = ExtentList();
  buffered_ = 0;
  return absl::OkStatus();
}

absl::StatusOr<SegmentAck> Session::Segment::Finish() {
  SNAPSYNC_RETURN_IF_ERROR(WriteOut());
  absl::StatusOr<SegmentAck> ack = session_->MakeDurable(first_, chunks_);
  session_->Leave(first_);
  left_ = true;
  return ack;
}

}  // namespace snapsync
