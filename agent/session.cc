// SPDX-License-Identifier: Apache-2.0
#include "agent/session.h"

#include <algorithm>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <utility>

#include "agent/read_back.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace snapsync {

Session::Session(std::unique_ptr<BlockWriter> writer,
                 std::unique_ptr<Journal> journal,
                 std::unique_ptr<ManifestLog> manifest_log,
                 const Options& options)
    : writer_(std::move(writer)),
      options_(options),
      for_manifest_(manifest_log != nullptr),
      progress_{journal->last().watermark, journal->last().digest},
      journal_(std::move(journal)),
      manifest_log_(std::move(manifest_log)) {}

absl::StatusOr<std::unique_ptr<Session::Segment>> Session::StartSegment(
    uint64_t first) {
  MutexLock lock(&mutex_);
  if (!status_.ok()) return status_;
  if (first < progress_.watermark || first >= options_.chunk_count ||
      in_flight_.contains(first)) {
    return Error(Reason::kConnection,
                 "segment at chunk " + std::to_string(first) +
                     " is out of turn: the watermark is " +
                     std::to_string(progress_.watermark) + " of " +
                     std::to_string(options_.chunk_count));
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
  if (chunk_count != options_.chunk_count ||
      progress_.watermark != options_.chunk_count || !in_flight_.empty()) {
    return Error(
        Reason::kVerification,
        "the session is not complete: " + std::to_string(progress_.watermark) +
            " of " + std::to_string(options_.chunk_count) +
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

void Session::WriteBatch(std::span<const WriteOperation> writes,
                         const ExtentList& zeroes) {
  const std::shared_lock writing(writing_);
  absl::Status status = this->status();
  if (status.ok() && !writes.empty()) status = writer_->Write(writes);
  for (const Extent& extent : zeroes.extents()) {
    if (status.ok()) status = writer_->Zero(extent);
  }
  if (!status.ok()) Fail(status).IgnoreError();
}

absl::StatusOr<SegmentAck> Session::AwaitTurn(uint64_t first) {
  MutexLock lock(&mutex_);
  const auto is_foremost = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !status_.ok() || *in_flight_.begin() == first;
  };
  const auto has_changed = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !is_foremost() || !status_.ok() || progress_.watermark == first ||
           lost_ < first;
  };
  for (;;) {
    mutex_.Await(is_foremost);
    if (!status_.ok()) return status_;
    if (progress_.watermark == first) return progress_;
    if (lost_ < first || !mutex_.AwaitFor(options_.patience, has_changed)) {
      return Error(Reason::kConnection, "the segment before chunk " +
                                            std::to_string(first) +
                                            " did not arrive whole");
    }
  }
}

absl::StatusOr<SegmentAck> Session::MakeDurable(uint64_t first,
                                                std::vector<Chunk>& chunks,
                                                const CellChanges& cells) {
  SNAPSYNC_ASSIGN_OR_RETURN(SegmentAck ack, AwaitTurn(first));
  ack.watermark += chunks.size();
  for (const Chunk& chunk : chunks) {
    ack.digest = ExtendSessionDigest(ack.digest, chunk.checksum);
  }
  const std::shared_lock writing(writing_);
  SNAPSYNC_RETURN_IF_ERROR(status());
  // The order is the promise: data, then the watermark that speaks of it.
  if (absl::Status s = writer_->Flush(); !s.ok()) return Fail(s);
  if (options_.verify) {
    if (absl::Status s = ReadBack(*writer_, chunks); !s.ok()) return Fail(s);
  }
  KeepInLog(first, ack.watermark, cells);
  if (absl::Status s = journal_->Append({ack.watermark, ack.digest}); !s.ok()) {
    return Fail(s);
  }
  MutexLock lock(&mutex_);
  progress_ = ack;
  return ack;
}

void Session::KeepInLog(uint64_t first, uint64_t end,
                        const CellChanges& cells) {
  if (manifest_log_ == nullptr) return;
  absl::Status status = manifest_log_->Append(first, end, cells);
  if (status.ok() && end == options_.chunk_count) {
    status = manifest_log_->Flush();
  }
  if (status.ok()) return;
  Log(Severity::kWarning,
      "no manifest is kept of this session: " + std::string(MessageOf(status)));
  manifest_log_.reset();
}

void Session::Leave(uint64_t first) {
  MutexLock lock(&mutex_);
  in_flight_.erase(first);
  if (progress_.watermark <= first) lost_ = std::min(lost_, first);
}

Session::Segment::Segment(Session* session, uint64_t first)
    : session_(session),
      first_(first),
      cells_(session->options_.source_size),
      batches_([session](auto writes,
                         auto& zeroes) { session->WriteBatch(writes, zeroes); },
               BatchOptions()) {}

BatchWriter::Options Session::Segment::BatchOptions() const {
  BatchWriter::Options options;
  options.copy = !session_->writer_->copies();
  if (!options.copy || !session_->options_.threads) options.threads = 0;
  // A small session needs no large buffer.
  options.most_bytes = std::min(BatchWriter::kBatchBytes / kChunkDataBytes,
                                session_->options_.chunk_count - first_) *
                       kChunkDataBytes;
  return options;
}

Session::Segment::~Segment() {
  if (left_) return;
  batches_.Drain();
  session_->Leave(first_);
}

absl::Status Session::Segment::Add(const Chunk& chunk) {
  const uint64_t expected = first_ + chunks_.size();
  if (chunk.index != expected || expected >= session_->options_.chunk_count ||
      chunks_.size() >= kMaxSegmentChunks) {
    return Error(Reason::kOther, "chunk " + std::to_string(chunk.index) +
                                     " from the sender, expected " +
                                     std::to_string(expected));
  }
  SNAPSYNC_RETURN_IF_ERROR(CheckChunk(chunk, session_->options_.source_size));
  const bool for_manifest = session_->for_manifest_;
  std::span<const std::byte> data = chunk.data;
  for (const Piece& piece : chunk.pieces) {
    if (piece.kind != PieceKind::kData) {
      batches_.AddZeroes({piece.offset, piece.length});
      if (for_manifest) cells_.AddZeroes({piece.offset, piece.length});
      continue;
    }
    batches_.Add(piece.offset, data.first(piece.length));
    if (for_manifest) cells_.AddData(piece.offset, data.first(piece.length));
    data = data.subspan(piece.length);
  }
  chunks_.push_back({chunk.index, chunk.pieces, {}, chunk.checksum});
  if (session_->writer_->copies()) batches_.Submit();
  return session_->status();
}

absl::StatusOr<SegmentAck> Session::Segment::Finish() {
  batches_.Drain();
  absl::StatusOr<SegmentAck> ack =
      session_->MakeDurable(first_, chunks_, cells_);
  session_->Leave(first_);
  left_ = true;
  return ack;
}

}  // namespace snapsync
