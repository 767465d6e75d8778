// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/network.h"

#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"

namespace snapsync::simulation {
namespace {

std::chrono::milliseconds Milliseconds(uint64_t count) {
  return std::chrono::milliseconds(static_cast<int64_t>(count));
}

// Flips a bit, or moves a piece: what a checksum has to find.
void Damage(ChunkInFlight& sent, Random& random) {
  if (!sent.bytes.empty() && random.Percent(70)) {
    sent.bytes[random.Below(sent.bytes.size())] ^=
        static_cast<std::byte>(1U << random.Below(8));
  } else if (random.Percent(50)) {
    Piece& piece = sent.chunk.pieces[random.Below(sent.chunk.pieces.size())];
    piece.offset ^= kSectorBytes << random.Below(20);
  } else {
    sent.chunk.checksum[random.Below(16)] ^= std::byte{1};
  }
}

}  // namespace

absl::Status Network::Broken(const char* what) {
  if (machine_->tracing()) {
    machine_->Trace("FAULT: " + std::string(what) + " broken");
  }
  return Error(Reason::kConnection, "simulated: connection lost");
}

absl::Status Network::BeforeCall(const char* what) {
  if (killed_) return Broken("dead sender");
  if (machine_->tracing()) machine_->Trace(std::string("sender: ") + what);
  clock_->now += Milliseconds(machine_->random().Below(20));
  outside_();
  agent_->LetLateChunksArrive();
  if (machine_->Happens(&FaultRates::sender_killed)) {
    ++machine_->counters.senders_killed;
    killed_ = true;
    return Broken("sender killed");
  }
  if (machine_->Happens(&FaultRates::broken_call)) {
    ++machine_->counters.broken_calls;
    return Broken(what);
  }
  return absl::OkStatus();
}

absl::Status Network::AfterCall(const char* what) {
  if (!machine_->up()) return Broken(what);
  if (machine_->Happens(&FaultRates::lost_reply)) {
    ++machine_->counters.lost_replies;
    return Broken(what);
  }
  return absl::OkStatus();
}

absl::StatusOr<VolumeState> Network::Describe(const std::string& /*volume*/) {
  SNAPSYNC_RETURN_IF_ERROR(BeforeCall("describe"));
  absl::StatusOr<VolumeState> state = agent_->replica().Describe();
  SNAPSYNC_RETURN_IF_ERROR(AfterCall("describe"));
  return state;
}

absl::StatusOr<SessionGrant> Network::OpenSession(
    const SessionRequest& request) {
  SNAPSYNC_RETURN_IF_ERROR(BeforeCall("open"));
  absl::StatusOr<SessionGrant> grant = agent_->replica().Open(request, peer_);
  if (machine_->tracing()) {
    machine_->Trace(
        "open: " + grant.status().ToString() +
        (grant.ok() ? ", watermark " + std::to_string(grant->watermark) : ""));
  }
  SNAPSYNC_RETURN_IF_ERROR(AfterCall("open"));
  if (grant.ok()) {
    if (grant->committed) {
      oracle_->HeardOfCommit(request.generation, grant->number);
    } else {
      if (grant->watermark > 0) ++machine_->counters.resumed;
      oracle_->HeardOfWatermark(grant->watermark);
    }
  }
  return grant;
}

class Stream final : public SegmentStream {
 public:
  Stream(Network* network, std::shared_ptr<Upload> upload)
      : network_(network),
        upload_(std::move(upload)),
        fast_percent_(network->machine_->random().Percent(50) ? 90 : 35) {}
  ~Stream() override {
    if (!answered_) Break();
  }

  bool Write(const Chunk& chunk) override {
    if (broken_ || upload_->result.has_value()) return false;
    Machine& machine = *network_->machine_;
    Random& random = machine.random();
    if (!network_->BeforeCall("chunk").ok()) {
      Break();
      return false;
    }
    ChunkInFlight sent(chunk);
    if (machine.Happens(&FaultRates::corruption)) {
      ++machine.counters.corruptions;
      network_->corrupted_ = true;
      machine.Trace("FAULT: chunk damaged");
      Damage(sent, random);
    }
    upload_->in_flight.push_back(std::move(sent));
    while (!upload_->in_flight.empty() && random.Percent(fast_percent_)) {
      network_->agent_->Deliver(*upload_);
    }
    return true;
  }

  void CloseWrites() override {
    if (broken_) return;
    upload_->closed = true;
    if (network_->machine_->random().Percent(60)) {
      network_->agent_->Complete(upload_);
    }
  }

  absl::StatusOr<SegmentAck> Finish() override {
    if (!broken_ && !network_->BeforeCall("finish").ok()) Break();
    if (broken_) return Error(Reason::kConnection, "simulated: broken");
    network_->agent_->Complete(upload_);
    answered_ = true;
    upload_->has_sender = false;
    SNAPSYNC_RETURN_IF_ERROR(network_->AfterCall("finish"));
    if (upload_->result->ok()) {
      ++network_->machine_->counters.segments;
      network_->oracle_->HeardOfWatermark((*upload_->result)->watermark);
    }
    return *upload_->result;
  }

 private:
  // What is in flight may still arrive, up to some chunk.
  void Break() {
    if (broken_) return;
    broken_ = true;
    Random& random = network_->machine_->random();
    while (!upload_->in_flight.empty() && random.Percent(15)) {
      upload_->in_flight.pop_back();
      upload_->closed = false;
    }
    if (random.Percent(60)) {
      network_->agent_->MakeLate(upload_);
    } else {
      upload_->has_sender = false;
      Agent::Drop(*upload_);
    }
  }

  Network* const network_;
  const std::shared_ptr<Upload> upload_;
  const double fast_percent_;  // the chance that a chunk arrives at once
  bool broken_ = false;
  bool answered_ = false;
};

absl::StatusOr<std::unique_ptr<SegmentStream>> Network::StartSegment(
    const std::string& /*volume*/, const Id128& session, uint64_t /*first*/) {
  // As with gRPC, the agent hears of it with the first chunk.
  return std::make_unique<Stream>(this, agent_->NewUpload(peer_, session));
}

absl::StatusOr<Receipt> Network::CommitSession(const CommitRequest& request) {
  SNAPSYNC_RETURN_IF_ERROR(BeforeCall("commit"));
  absl::StatusOr<Receipt> receipt = agent_->replica().Commit(request, peer_);
  if (machine_->tracing()) {
    machine_->Trace("commit: " + receipt.status().ToString());
  }
  if (const absl::Status lost = AfterCall("commit"); !lost.ok()) {
    commit_reply_lost_ = receipt.ok();
    return lost;
  }
  if (receipt.ok()) {
    oracle_->HeardOfCommit(receipt->generation, receipt->number);
  }
  return receipt;
}

absl::StatusOr<Id128> Network::HashBlocks(const HashRequest& request,
                                          const HashSink& sink) {
  SNAPSYNC_RETURN_IF_ERROR(BeforeCall("hash"));
  absl::StatusOr<HashStart> start = agent_->replica().StartHash(request, peer_);
  if (machine_->tracing()) {
    machine_->Trace("hash: " + start.status().ToString());
  }
  SNAPSYNC_RETURN_IF_ERROR(AfterCall("hash"));
  SNAPSYNC_RETURN_IF_ERROR(start.status());
  for (uint64_t first_block = request.first_block;;) {
    const absl::StatusOr<std::vector<Digest256>> digests =
        start->hasher->Next();
    SNAPSYNC_RETURN_IF_ERROR(AfterCall("hashes"));
    SNAPSYNC_RETURN_IF_ERROR(digests.status());
    if (digests->empty()) return start->generation;
    SNAPSYNC_RETURN_IF_ERROR(sink(start->generation, first_block, *digests));
    first_block += digests->size();
    outside_();
  }
}

}  // namespace snapsync::simulation
