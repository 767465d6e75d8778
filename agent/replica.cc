// SPDX-License-Identifier: Apache-2.0
#include "agent/replica.h"

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"

namespace snapsync {
namespace {

bool SamePlan(const SessionRequest& request, const SessionRecord& session) {
  return request.plan_digest == session.plan_digest &&
         request.base == session.base &&
         request.generation == session.generation &&
         request.chunk_count == session.chunk_count &&
         request.source_size == session.source_size &&
         request.replication == session.replication;
}

// What the sender has not said is as it was.
ExportOptions ImageFor(const SessionRequest& request,
                       const ExportOptions& old) {
  ExportOptions image = request.image;
  if (request.base.none()) return image;
  image.chain |= old.chain;
  if (image.virtual_size == 0 && old.virtual_size >= request.source_size) {
    image.virtual_size = old.virtual_size;
  }
  if (image.cluster_size == 0) image.cluster_size = old.cluster_size;
  if (image.compression.empty()) image.compression = old.compression;
  if (image.keep == 0) image.keep = old.keep;
  return image;
}

constexpr char kOverwrite[] =
    "--yes overwrites it, sending only what differs; --allow-full sends "
    "everything";

void SetProblem(const absl::Status& status, VolumeState& state) {
  state.problem = std::string(MessageOf(status));
  state.problem_reason = static_cast<int>(ReasonOf(status));
}

}  // namespace

Replica::Replica(ReplicaOptions options, std::unique_ptr<Target> target,
                 SessionStore* store)
    : options_(std::move(options)), target_(std::move(target)), store_(store) {}

absl::StatusOr<TargetRecord> Replica::LoadRecord() {
  SNAPSYNC_ASSIGN_OR_RETURN(std::optional<TargetRecord> record,
                            store_->Load(options_.volume));
  TargetRecord known = record.value_or(TargetRecord{});
  SNAPSYNC_RETURN_IF_ERROR(
      known.session
          ? target_->SetImage(known.session->image, known.session->replication)
          : target_->SetImage(known.image, known.replication));
  return known;
}

absl::Status Replica::Recover() {
  MutexLock lock(&mutex_);
  SNAPSYNC_ASSIGN_OR_RETURN(TargetRecord record, LoadRecord());
  if (record.state != TargetState::kCommitting) return absl::OkStatus();
  return FinishCommit(std::move(record)).status();
}

absl::Status Replica::BeingWritten(const TargetRecord& record) {
  return Error(Reason::kBusy,
               "volume " + options_.volume + " is being written by " +
                   live_peer_ + " (replication " + record.session->replication +
                   ", from " + record.session->source +
                   "); try again later, or end that with --take-over");
}

absl::Status Replica::CheckReceives(const TargetRecord& record) const {
  if (!record.promoted) return absl::OkStatus();
  return Error(Reason::kTargetUnsuitable,
               "volume " + options_.volume +
                   " was promoted: it is written to here, and receives nothing "
                   "until a revert has brought its state to the other side");
}

void Replica::DropLive() {
  DropLive(
      Error(Reason::kConnection, "the session was opened again or superseded"));
}

void Replica::DropLive(const absl::Status& reason) {
  if (live_ == nullptr) return;
  live_->Fence(reason);
  live_.reset();
  live_id_ = Id128{};
}

absl::StatusOr<SessionGrant> Replica::Open(const SessionRequest& request,
                                           const std::string& peer) {
  MutexLock lock(&mutex_);
  SNAPSYNC_ASSIGN_OR_RETURN(TargetRecord record, LoadRecord());
  if (record.state == TargetState::kCommitting) {
    SNAPSYNC_RETURN_IF_ERROR(FinishCommit(record).status());
    SNAPSYNC_ASSIGN_OR_RETURN(record, LoadRecord());
  }
  for (const GenerationRecord& generation : record.generations) {
    // What is planned from the generation that is here comes after it.
    if (generation.generation == request.generation &&
        generation.plan_digest == request.plan_digest &&
        request.base != record.generation) {
      // The agent may have been killed right after it was committed.
      if (!record.session) TidyUp(record);
      return SessionGrant{.watermark = request.chunk_count,
                          .committed = true,
                          .number = generation.number};
    }
  }
  SNAPSYNC_RETURN_IF_ERROR(CheckReceives(record));
  const bool resumes =
      record.session.has_value() && SamePlan(request, *record.session);
  if (live_ != nullptr && live_->active() && (!resumes || live_peer_ != peer)) {
    return BeingWritten(record);
  }
  SNAPSYNC_RETURN_IF_ERROR(EndHashing(peer));
  SNAPSYNC_ASSIGN_OR_RETURN(const TargetFacts facts, target_->Inspect());
  if (resumes && facts.identity == record.identity &&
      !record.session->stage.empty()) {
    DropLive();
    if (request.no_verify && record.session->verified) {
      record.session->verified = false;
      SNAPSYNC_RETURN_IF_ERROR(store_->Save(options_.volume, record));
    }
    absl::StatusOr<SessionGrant> grant = Resume(record, !request.no_verify);
    if (grant.ok()) live_peer_ = peer;
    // The stage is gone: what was sent is lost, but nothing else. Anew.
    if (grant.ok() || ReasonOf(grant.status()) != Reason::kBaseMismatch) {
      return grant;
    }
    Log(Severity::kWarning, "volume " + options_.volume + ": " +
                                std::string(MessageOf(grant.status())) +
                                "; the session starts again");
  }
  SNAPSYNC_RETURN_IF_ERROR(CheckOpen(request, facts, record));
  if (request.chunk_count == 0 && request.generation == request.base) {
    if (!tidy_ && !record.session) TidyUp(record);
    SessionGrant grant;
    grant.committed = true;
    grant.number = record.number;
    return grant;
  }
  DropLive();
  SNAPSYNC_RETURN_IF_ERROR(EndSession(record));
  SNAPSYNC_RETURN_IF_ERROR(target_->CheckRoom(request.new_bytes));
  record.identity = facts.identity;
  return Begin(request, peer, std::move(record));
}

absl::Status Replica::CheckOpen(const SessionRequest& request,
                                const TargetFacts& facts,
                                TargetRecord& record) {
  const std::string volume = "volume " + options_.volume;
  const bool may_overwrite = request.covers_all && request.allow_overwrite;
  if (!facts.grows && request.source_size > facts.size) {
    return Error(Reason::kTargetUnsuitable,
                 volume + ": the target has " + std::to_string(facts.size) +
                     " bytes, the source " +
                     std::to_string(request.source_size) +
                     "; grow the target (lvextend) and try again");
  }
  if (request.generation.none()) {
    return Error(Reason::kOther, volume + ": the request names no generation");
  }
  const bool empty =
      record.generation.none() && record.state != TargetState::kTorn;
  if (record.state != TargetState::kEmpty &&
      record.identity != facts.identity) {
    if (!may_overwrite) {
      return Error(Reason::kTargetUnsuitable,
                   volume + ": its path is now " + facts.identity +
                       ", but the replica was on " + record.identity +
                       "; if that is meant, " + kOverwrite);
    }
    // What is known speaks of another device; its stage must not be touched.
    record = TargetRecord{};
    return absl::OkStatus();
  }
  if (!record.replication.empty() &&
      record.replication != request.replication && !may_overwrite) {
    return Error(Reason::kTargetUnsuitable,
                 volume + ": it is the replica of replication \"" +
                     record.replication + "\", not of \"" +
                     request.replication + "\"; choose another volume, or " +
                     kOverwrite);
  }
  if (record.state == TargetState::kTorn) {
    // Whatever the torn session wrote has to be covered; another delta from the
    // old generation does not know about it. The same plan, from its start,
    // does: a crash may have come before its stage was recorded.
    if (request.covers_all || SamePlan(request, *record.session)) {
      return absl::OkStatus();
    }
    return Error(Reason::kBaseMismatch,
                 volume + ": torn between generation " +
                     record.generation.Short() + " and " +
                     record.session->generation.Short() +
                     "; resume that session, or a full sync heals it");
  }
  if (!request.base.none()) {
    if (request.base != record.generation) {
      return Error(Reason::kBaseMismatch,
                   volume + ": holds generation " + record.generation.Short() +
                       ", the sender's base is " + request.base.Short());
    }
    return target_->CheckSeal(record.seal);
  }
  if (facts.blank && empty) {
    if (!facts.blank_by_sample || request.covers_all) return absl::OkStatus();
    return Error(Reason::kBaseMismatch,
                 volume +
                     ": a sample of the target is zero, but not all of it is "
                     "known to be; a plan that covers all of it is needed");
  }
  if (may_overwrite) return absl::OkStatus();
  if (!empty) {
    return Error(Reason::kBaseMismatch,
                 volume + ": holds generation " + record.generation.Short() +
                     " but the sender has no base for it; " + kOverwrite);
  }
  if (request.covers_all) {
    return Error(Reason::kTargetUnsuitable,
                 volume + ": the target is not empty; " + kOverwrite);
  }
  return Error(Reason::kBaseMismatch,
               volume + ": the target is not empty any more; plan again");
}

absl::Status Replica::EndSession(TargetRecord& record) {
  if (!record.session.has_value()) return absl::OkStatus();
  Log(Severity::kInfo, "volume " + options_.volume +
                           ": the session towards generation " +
                           record.session->generation.Short() + " ends");
  SNAPSYNC_RETURN_IF_ERROR(target_->RemoveStage(record.session->stage));
  if (record.state == TargetState::kTorn) return absl::OkStatus();
  record.session.reset();
  record.state =
      record.generation.none() ? TargetState::kEmpty : TargetState::kAt;
  return store_->Save(options_.volume, record);
}

absl::StatusOr<SessionGrant> Replica::Begin(const SessionRequest& request,
                                            const std::string& peer,
                                            TargetRecord record) {
  SessionRecord session;
  session.id = Id128::Random();
  session.base = request.base;
  session.generation = request.generation;
  session.replication = request.replication;
  session.source = request.source;
  session.owner = peer;
  session.source_size = request.source_size;
  session.plan_digest = request.plan_digest;
  session.chunk_count = request.chunk_count;
  session.image = ImageFor(request, record.image);
  session.verified = !request.no_verify;
  SNAPSYNC_RETURN_IF_ERROR(
      target_->SetImage(session.image, request.replication));
  record.session = session;
  record.state =
      target_->in_place() ? TargetState::kTorn : TargetState::kFilling;
  SNAPSYNC_RETURN_IF_ERROR(store_->Save(options_.volume, record));
  SNAPSYNC_ASSIGN_OR_RETURN(
      record.session->stage,
      target_->CreateStage(request.source_size, !request.base.none()));
  SNAPSYNC_RETURN_IF_ERROR(store_->Save(options_.volume, record));
  SNAPSYNC_ASSIGN_OR_RETURN(const SessionGrant grant,
                            Resume(record, !request.no_verify));
  live_peer_ = peer;
  return grant;
}

absl::StatusOr<SessionGrant> Replica::Resume(const TargetRecord& record,
                                             bool verify) {
  SNAPSYNC_ASSIGN_OR_RETURN(
      std::unique_ptr<Journal> journal,
      store_->OpenJournal(options_.volume, record.session->id));
  SNAPSYNC_ASSIGN_OR_RETURN(std::unique_ptr<BlockWriter> writer,
                            target_->OpenStage(record.session->stage));
  Session::Options options;
  options.source_size = record.session->source_size;
  options.chunk_count = record.session->chunk_count;
  options.verify = verify;
  options.threads = options_.threads;
  if (!options.threads) options.patience = {};
  auto log = OpenManifestLog(*record.session, journal->last().watermark);
  live_ = std::make_shared<Session>(std::move(writer), std::move(journal),
                                    std::move(log), options);
  live_id_ = Id128::Random();
  SessionGrant grant;
  grant.session = live_id_;
  grant.watermark = live_->progress().watermark;
  grant.digest = live_->progress().digest;
  return grant;
}

absl::StatusOr<std::shared_ptr<Session>> Replica::Find(
    const Id128& id, const std::string& peer) {
  MutexLock lock(&mutex_);
  SNAPSYNC_RETURN_IF_ERROR(CheckLive(id, peer));
  return live_;
}

absl::Status Replica::CheckLive(const Id128& id, const std::string& peer) {
  if (live_ != nullptr && id == live_id_ && peer == live_peer_) {
    return absl::OkStatus();
  }
  // Opened again it would take the volume back.
  for (const auto& [session, by] : taken_over_) {
    if (session == id) return by;
  }
  return Error(Reason::kConnection,
               "volume " + options_.volume +
                   ": the session is not open here any more; open it again");
}

absl::StatusOr<Receipt> Replica::Commit(const CommitRequest& request,
                                        const std::string& peer) {
  MutexLock lock(&mutex_);
  SNAPSYNC_RETURN_IF_ERROR(CheckLive(request.session, peer));
  SNAPSYNC_RETURN_IF_ERROR(
      live_->CheckComplete(request.chunk_count, request.digest));
  SNAPSYNC_ASSIGN_OR_RETURN(TargetRecord record, LoadRecord());
  // From here on the writer is closed: the switch needs the stage unused, and
  // the target.
  if (const auto hasher = hashing_.lock()) hasher->Fence();
  DropLive();
  record.state = TargetState::kCommitting;
  SNAPSYNC_RETURN_IF_ERROR(store_->Save(options_.volume, record));
  return FinishCommit(std::move(record));
}

absl::StatusOr<Receipt> Replica::FinishCommit(TargetRecord record) {
  const SessionRecord session = *record.session;
  const uint64_t number = record.number + 1;
  // A full session covers everything: what the target held does not matter.
  const std::string base_seal = session.base.none() ? "" : record.seal;
  absl::StatusOr<std::string> seal =
      target_->Commit(session.stage, number, session.generation, base_seal);
  if (!seal.ok()) {
    if (ReasonOf(seal.status()) == Reason::kBaseMismatch) {
      // Somebody wrote to the target in the meantime, or the stage is gone, or
      // the device is another one. The target stays as it is; the next sync is
      // told so.
      if (target_->in_place()) {
        record.state = TargetState::kTorn;
        SNAPSYNC_RETURN_IF_ERROR(store_->Save(options_.volume, record));
      } else {
        record.state = TargetState::kFilling;
        SNAPSYNC_RETURN_IF_ERROR(EndSession(record));
      }
    }
    return seal.status();
  }
  if (options_.manifest) KeepManifest(session);
  record.state = TargetState::kAt;
  record.replication = session.replication;
  record.generation = session.generation;
  record.number = number;
  record.seal = *std::move(seal);
  record.image = session.image;
  record.session.reset();
  record.generations.push_back({session.generation, number, session.source_size,
                                session.plan_digest, options_.unix_seconds(),
                                session.verified});
  if (record.generations.size() > TargetRecord::kGenerationsKept) {
    record.generations.erase(record.generations.begin());
  }
  SNAPSYNC_RETURN_IF_ERROR(store_->Save(options_.volume, record));
  TidyUp(record);
  return Receipt{record.generation, record.number};
}

void Replica::TidyUp(const TargetRecord& record) {
  if (options_.manifest) RemoveManifestLog();
  const uint64_t keep =
      record.image.keep == 0 ? options_.keep : record.image.keep;
  const absl::Status s = target_->Prune(record.number, keep);
  tidy_ = s.ok();
  if (!tidy_) {
    Log(Severity::kWarning, "volume " + options_.volume +
                                ": an old generation was not removed: " +
                                std::string(MessageOf(s)));
  }
}

absl::Status Replica::Abort(const std::string& peer) {
  MutexLock lock(&mutex_);
  SNAPSYNC_ASSIGN_OR_RETURN(TargetRecord record, LoadRecord());
  if (record.state == TargetState::kCommitting) {
    return FinishCommit(std::move(record)).status();
  }
  if (live_ != nullptr && live_->active() && live_peer_ != peer) {
    return Error(Reason::kBusy, "volume " + options_.volume +
                                    " is being written by " + live_peer_);
  }
  DropLive();
  return EndSession(record);
}

absl::Status Replica::TakeOver(const std::string& peer) {
  MutexLock lock(&mutex_);
  const absl::Status taken =
      Error(Reason::kBusy,
            "volume " + options_.volume + " was taken over by " + peer);
  // Also between two of its segments.
  if (live_ != nullptr) {
    Log(Severity::kWarning, "volume " + options_.volume + ": " + peer +
                                " takes over from " + live_peer_);
    taken_over_.emplace_back(live_id_, taken);
    if (taken_over_.size() > kTakenOverKept) taken_over_.pop_front();
    DropLive(taken);
  }
  if (const auto hasher = hashing_.lock()) hasher->Fence(taken);
  hashing_.reset();
  return absl::OkStatus();
}

absl::Status Replica::Tend(std::chrono::steady_clock::time_point now,
                           std::chrono::seconds limit) {
  MutexLock lock(&mutex_);
  SNAPSYNC_ASSIGN_OR_RETURN(TargetRecord record, LoadRecord());
  if (record.state == TargetState::kCommitting) {
    return FinishCommit(std::move(record)).status();
  }
  if (record.state != TargetState::kFilling || !record.session ||
      limit.count() == 0) {
    return absl::OkStatus();
  }
  const std::pair<Id128, uint64_t> seen(
      live_ == nullptr ? record.session->id : live_id_,
      live_ == nullptr ? 0 : live_->progress().watermark);
  if (seen != seen_ || (live_ != nullptr && live_->active())) {
    seen_ = seen;
    seen_at_ = now;
    return absl::OkStatus();
  }
  if (now - seen_at_ < limit) return absl::OkStatus();
  Log(Severity::kWarning,
      "volume " + options_.volume + ": the session of " +
          record.session->owner + " has not moved for " +
          FormatSeconds(static_cast<double>(limit.count())) + " and expires");
  DropLive();
  return EndSession(record);
}

absl::StatusOr<VolumeState> Replica::Describe() {
  MutexLock lock(&mutex_);
  SNAPSYNC_ASSIGN_OR_RETURN(TargetRecord record, LoadRecord());
  VolumeState state;
  if (record.state == TargetState::kCommitting) {
    // Whoever asks decides by the answer: what was promised comes first.
    const absl::Status finished = FinishCommit(record).status();
    SNAPSYNC_ASSIGN_OR_RETURN(record, LoadRecord());
    if (record.state == TargetState::kCommitting) SetProblem(finished, state);
  }
  state.name = options_.volume;
  state.kind = options_.kind;
  state.state = std::string(NameOf(record.state));
  state.replication = record.replication;
  state.generation = record.generation;
  state.number = record.number;
  state.promoted = record.promoted;
  const absl::StatusOr<TargetFacts> facts = target_->Inspect();
  if (facts.ok()) {
    state.place = facts->place;
    state.size = facts->size;
    state.blank = facts->blank;
    state.grows = facts->grows;
    state.allocation_unit = facts->allocation_unit;
  } else if (state.problem.empty()) {
    SetProblem(facts.status(), state);
  }
  const std::vector<uint64_t> held =
      target_->Generations().value_or(std::vector<uint64_t>());
  for (const GenerationRecord& generation : record.generations) {
    const bool retained =
        std::find(held.begin(), held.end(), generation.number) != held.end();
    state.generations.push_back(
        {generation.generation, generation.number, generation.source_size,
         generation.committed_unix_seconds, retained, generation.verified});
  }
  return state;
}

}  // namespace snapsync
