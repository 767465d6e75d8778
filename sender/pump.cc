// SPDX-License-Identifier: Apache-2.0
#include "sender/pump.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include "common/base/error.h"
#include "common/base/rate_limiter.h"
#include "common/base/status_macros.h"
#include "sender/backoff.h"
#include "sender/chunk_source.h"

namespace snapsync {
namespace {

using std::chrono::nanoseconds;

// Segments that may wait for the agent's flush while the next one is sent.
constexpr size_t kWaitingSegments = 1;

class PumpRun {
 public:
  PumpRun(AgentClient& client, const SessionRequest& request, const Plan& plan,
          BlockReader& source, const PumpOptions& options)
      : client_(client),
        request_(request),
        plan_(plan),
        source_(source),
        options_(options),
        limiter_(options.bytes_per_second),
        last_progress_(options.now()) {
    progress_.total_bytes = plan.changed_bytes() + plan.gone_bytes();
  }

  absl::StatusOr<PumpResult> Run() {
    Backoff backoff(options_);
    for (;;) {
      const uint64_t before = best_watermark_;
      const absl::Status status = Attempt();
      if (status.ok()) return result_;
      if (options_.interrupted()) {
        return Error(Reason::kConnection, "interrupted");
      }
      if (ReasonOf(status) != Reason::kConnection) return status;
      if (best_watermark_ > before) backoff.Reset();
      SNAPSYNC_RETURN_IF_ERROR(
          backoff.Wait(status, last_progress_, options_.retry_for));
    }
  }

 private:
  struct Waiting {
    std::unique_ptr<SegmentStream> stream;
    SegmentAck expected;
  };

  absl::Status Attempt() {
    SNAPSYNC_ASSIGN_OR_RETURN(const SessionGrant grant,
                              client_.OpenSession(request_));
    if (grant.committed) {
      result_.receipt = {request_.generation, grant.number};
      result_.was_committed = true;
      return absl::OkStatus();
    }
    if (grant.watermark > plan_.chunk_count()) {
      return Error(Reason::kOther, "the agent speaks of " +
                                       std::to_string(grant.watermark) +
                                       " chunks, the plan has " +
                                       std::to_string(plan_.chunk_count()));
    }
    SNAPSYNC_RETURN_IF_ERROR(SkipTo(grant.watermark));
    SNAPSYNC_ASSIGN_OR_RETURN(const Digest256 digest, SendAll(grant));
    CommitRequest commit;
    commit.volume = request_.volume;
    commit.session = grant.session;
    commit.chunk_count = plan_.chunk_count();
    commit.digest = digest;
    SNAPSYNC_ASSIGN_OR_RETURN(result_.receipt, client_.CommitSession(commit));
    if (result_.receipt.generation != request_.generation) {
      return Error(Reason::kVerification,
                   "the agent committed another generation than was sent");
    }
    return absl::OkStatus();
  }

  // Counts what the agent already has.
  absl::Status SkipTo(uint64_t watermark) {
    Plan::Cursor cursor(plan_);
    progress_.done_bytes = 0;
    for (uint64_t i = 0; i < watermark; ++i) {
      for (const Piece& piece : cursor.Next()) {
        progress_.done_bytes += piece.length;
      }
    }
    if (!started_) {
      if (progress_.done_bytes < options_.resume_from_bytes) {
        return Error(Reason::kUsage,
                     "the agent holds " + std::to_string(progress_.done_bytes) +
                         " bytes of this sync durably, less than --resume " +
                         std::to_string(options_.resume_from_bytes) +
                         "; without --resume it goes on where it can");
      }
      result_.resumed_from_bytes = progress_.done_bytes;
    }
    started_ = true;
    // Progress of which the answer was lost.
    if (watermark > best_watermark_) Moved();
    best_watermark_ = std::max(best_watermark_, watermark);
    return absl::OkStatus();
  }

  absl::StatusOr<Digest256> SendAll(const SessionGrant& grant) {
    const std::unique_ptr<ChunkSource> chunks =
        MakeChunkSource(&source_, &plan_, grant.watermark, options_.read_ahead);
    SegmentAck sent{grant.watermark, grant.digest};
    std::deque<Waiting> waiting;
    while (sent.watermark < plan_.chunk_count()) {
      SNAPSYNC_ASSIGN_OR_RETURN(
          std::unique_ptr<SegmentStream> stream,
          client_.StartSegment(request_.volume, grant.session, sent.watermark));
      SNAPSYNC_RETURN_IF_ERROR(SendSegment(*chunks, *stream, sent));
      waiting.push_back({std::move(stream), sent});
      while (waiting.size() > kWaitingSegments) {
        SNAPSYNC_RETURN_IF_ERROR(Await(waiting));
      }
    }
    while (!waiting.empty()) SNAPSYNC_RETURN_IF_ERROR(Await(waiting));
    return sent.digest;
  }

  // Sends the next segment and moves `sent` to its end.
  absl::Status SendSegment(ChunkSource& chunks, SegmentStream& stream,
                           SegmentAck& sent) {
    const auto begin = options_.now();
    for (uint64_t i = 0; i < kSegmentChunks; ++i) {
      if (options_.interrupted()) {
        return Error(Reason::kConnection, "interrupted");
      }
      SNAPSYNC_ASSIGN_OR_RETURN(const Chunk* chunk, chunks.Next());
      if (chunk == nullptr) break;
      const nanoseconds wait =
          limiter_.Take(chunk->data.size(), options_.now());
      if (wait.count() > 0) options_.sleep(wait);
      if (!stream.Write(*chunk)) {
        const absl::Status status = stream.Finish().status();
        if (!status.ok()) return status;
        return Error(Reason::kConnection, "the agent ended the segment early");
      }
      Count(*chunk);
      sent.digest = ExtendSessionDigest(sent.digest, chunk->checksum);
      sent.watermark = chunk->index + 1;
      if (options_.now() - begin > options_.segment_time) break;
    }
    stream.CloseWrites();
    return absl::OkStatus();
  }

  absl::Status Await(std::deque<Waiting>& waiting) {
    const Waiting segment = std::move(waiting.front());
    waiting.pop_front();
    SNAPSYNC_ASSIGN_OR_RETURN(const SegmentAck ack, segment.stream->Finish());
    if (ack.watermark != segment.expected.watermark ||
        ack.digest != segment.expected.digest) {
      return Error(Reason::kVerification,
                   "the agent's digest at chunk " +
                       std::to_string(ack.watermark) +
                       " is not the sender's: what arrived is not what was "
                       "sent");
    }
    best_watermark_ = std::max(best_watermark_, ack.watermark);
    Moved();
    return absl::OkStatus();
  }

  void Count(const Chunk& chunk) {
    for (const Piece& piece : chunk.pieces) {
      progress_.done_bytes += piece.length;
      if (piece.kind == PieceKind::kZero) result_.zero_bytes += piece.length;
      if (piece.kind == PieceKind::kGone) result_.gone_bytes += piece.length;
    }
    progress_.sent_bytes += chunk.data.size();
    result_.data_bytes += chunk.data.size();
    options_.progress(progress_);
  }

  void Moved() { last_progress_ = options_.now(); }

  AgentClient& client_;
  const SessionRequest& request_;
  const Plan& plan_;
  BlockReader& source_;
  const PumpOptions& options_;
  RateLimiter limiter_;
  PumpProgress progress_;
  PumpResult result_;
  bool started_ = false;
  uint64_t best_watermark_ = 0;
  std::chrono::steady_clock::time_point last_progress_;
};

}  // namespace

absl::StatusOr<PumpResult> Pump(AgentClient& client,
                                const SessionRequest& request, const Plan& plan,
                                BlockReader& source,
                                const PumpOptions& options) {
  return PumpRun(client, request, plan, source, options).Run();
}

}  // namespace snapsync
