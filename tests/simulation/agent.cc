// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/agent.h"

#include <iterator>
#include <utility>

#include "common/base/error.h"
#include "common/base/units.h"

namespace snapsync::simulation {

Agent::Agent(Machine* machine, StateDirectory* directory, Volume* volume,
             Oracle* oracle)
    : machine_(machine),
      directory_(directory),
      volume_(volume),
      oracle_(oracle) {}

void Agent::Start() {
  // The process is gone, and with it all that it held.
  for (const auto& upload : uploads_) Drop(*upload);
  uploads_.clear();
  late_.clear();
  replica_.reset();
  store_.reset();
  oracle_->CheckVolume();
  oracle_->CheckDurable();

  machine_->Boot();
  store_ = std::make_unique<SimulatedStore>(directory_, machine_, [this] {
    if (machine_->lie() == Lie::kStageFlushAfterJournal &&
        volume_->stage() != nullptr) {
      volume_->stage()->Flush();
    }
  });
  ReplicaOptions options;
  options.volume = "volume";
  options.kind = "simulated";
  options.threads = false;
  options.unix_seconds = [] { return int64_t{1}; };
  replica_ = std::make_unique<Replica>(std::move(options), volume_->Open(),
                                       store_.get());
  const absl::Status status = replica_->Recover();
  if (machine_->tracing()) machine_->Trace("recover: " + status.ToString());
}

Replica& Agent::replica() {
  while (!machine_->up()) Start();
  return *replica_;
}

std::shared_ptr<Upload> Agent::NewUpload(const std::string& peer,
                                         const Id128& session) {
  uploads_.remove_if([](const auto& upload) {
    return upload->result.has_value() && !upload->has_sender;
  });
  auto upload = std::make_shared<Upload>();
  upload->peer = peer;
  upload->session = session;
  uploads_.push_back(upload);
  return upload;
}

void Agent::Drop(Upload& upload) {
  upload.segment.reset();
  upload.in_flight.clear();
  if (!upload.result.has_value()) {
    upload.result = Error(Reason::kConnection, "simulated: connection lost");
  }
}

void Agent::Deliver(Upload& upload) {
  if (upload.result.has_value() || upload.in_flight.empty()) return;
  if (!machine_->up()) return Drop(upload);
  ChunkInFlight arrived = std::move(upload.in_flight.front());
  upload.in_flight.pop_front();
  const auto refuse = [&upload](const absl::Status& status) {
    upload.segment.reset();
    upload.in_flight.clear();
    upload.result = status;
  };
  if (upload.segment == nullptr) {
    auto live = replica_->Find(upload.session, upload.peer);
    if (!live.ok()) return refuse(live.status());
    upload.live = *std::move(live);
    upload.first = arrived.chunk.index;
    upload.stage = volume_->stage();
    auto segment = upload.live->StartSegment(upload.first);
    if (!segment.ok()) return refuse(segment.status());
    upload.segment = *std::move(segment);
  }
  const absl::Status status = upload.segment->Add(arrived.chunk);
  if (machine_->lie() == Lie::kLateChunksWritten) {
    upload.arrived.push_back(std::move(arrived));
  }
  if (!status.ok()) refuse(status);
}

void Agent::WriteDespiteFence(const Upload& upload) {
  for (const ChunkInFlight& arrived : upload.arrived) {
    const std::byte* data = arrived.bytes.data();
    for (const Piece& piece : arrived.chunk.pieces) {
      if (piece.kind == PieceKind::kData) {
        upload.stage->Write(piece.offset / kSectorBytes, {data, piece.length});
        data += piece.length;
      } else {
        upload.stage->Zero({piece.offset, piece.length});
      }
    }
  }
}

void Agent::Complete(const std::shared_ptr<Upload>& upload) {
  while (!upload->result.has_value() && !upload->in_flight.empty()) {
    Deliver(*upload);
  }
  if (upload->result.has_value()) return;
  if (upload->segment == nullptr) {
    upload->result = Error(Reason::kOther, "a segment without a chunk");
    return;
  }
  // A real one waits for the segments before it; here nobody else runs.
  for (const auto& other : uploads_) {
    if (other == upload || other->segment == nullptr ||
        other->live != upload->live || other->first > upload->first) {
      continue;
    }
    if (other->closed) {
      Complete(other);
    } else {
      Drop(*other);
    }
  }
  if (upload->result.has_value()) return;
  if (!upload->live->status().ok()) {
    ++machine_->counters.fenced;
    WriteDespiteFence(*upload);
  }
  upload->result = upload->segment->Finish();
  upload->segment.reset();
}

void Agent::MakeLate(const std::shared_ptr<Upload>& upload) {
  upload->has_sender = false;
  if (upload->result.has_value()) return;
  upload->slow = machine_->random().Percent(30);
  late_.push_back(upload);
}

void Agent::LetLateChunksArrive() {
  Random& random = machine_->random();
  if (late_.empty() || !random.Percent(40)) return;
  const auto chosen = std::next(
      late_.begin(), static_cast<std::ptrdiff_t>(random.Below(late_.size())));
  const std::shared_ptr<Upload> upload = *chosen;
  if (upload->slow && random.Percent(90)) return;
  if (!upload->in_flight.empty()) {
    ++machine_->counters.late_chunks;
    machine_->Trace("a late chunk arrives");
    Deliver(*upload);
  } else if (upload->closed && random.Percent(50)) {
    machine_->Trace("a late segment is complete");
    Complete(upload);
  } else if (random.Percent(30)) {
    Drop(*upload);
  }
  // Restarted in between, the agent has forgotten all of them.
  late_.remove_if([](const auto& late) { return late->result.has_value(); });
}

void Agent::DropLateUploads() {
  for (const auto& upload : late_) Drop(*upload);
  late_.clear();
}

}  // namespace snapsync::simulation
