// SPDX-License-Identifier: Apache-2.0
//
// The part of a replica that looks at what the target holds: comparing it,
// telling what changed in it, sending it elsewhere.
#include <utility>

#include "agent/replica.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace snapsync {
namespace {

// The peer in the record of a generation that this agent makes for itself.
constexpr char kOwnPeer[] = "this agent";

}  // namespace

absl::Status Replica::EndHashing(const std::string& peer) {
  const std::shared_ptr<Hasher> hasher = hashing_.lock();
  if (hasher == nullptr) return absl::OkStatus();
  if (hashing_peer_ != peer) {
    return Error(Reason::kBusy, "volume " + options_.volume +
                                    " is being compared by " + hashing_peer_ +
                                    "; try again later, or end that with "
                                    "--take-over");
  }
  hasher->Fence();
  hashing_.reset();
  return absl::OkStatus();
}

absl::StatusOr<Id128> Replica::BeginComparing(const HashRequest& request,
                                              const std::string& peer) {
  SNAPSYNC_ASSIGN_OR_RETURN(TargetRecord record, LoadRecord());
  SNAPSYNC_RETURN_IF_ERROR(CheckReceives(record));
  if (record.state == TargetState::kCommitting) {
    SNAPSYNC_RETURN_IF_ERROR(FinishCommit(record).status());
    SNAPSYNC_ASSIGN_OR_RETURN(record, LoadRecord());
  }
  if (live_ != nullptr && live_->active()) return BeingWritten(record);
  SNAPSYNC_RETURN_IF_ERROR(EndHashing(peer));
  SNAPSYNC_ASSIGN_OR_RETURN(const TargetFacts facts, target_->Inspect());
  if (record.state == TargetState::kTorn && record.identity == facts.identity) {
    return Error(Reason::kBaseMismatch,
                 "volume " + options_.volume + ": torn between generation " +
                     record.generation.Short() + " and " +
                     record.session->generation.Short() +
                     "; resume that session, or a full sync heals it");
  }
  // As if a plan were opened that starts at what the record says, or, with the
  // operator's consent, anywhere.
  SessionRequest probe;
  probe.replication = request.replication;
  probe.base = record.generation;
  probe.generation = Id128::Random();
  probe.source_size = request.source_size;
  probe.covers_all = true;
  probe.allow_overwrite = request.allow_overwrite;
  const absl::Status held = CheckOpen(probe, facts, record);
  if (!held.ok() &&
      (ReasonOf(held) != Reason::kBaseMismatch || !request.allow_overwrite)) {
    return held;
  }
  if (held.ok() && !record.generation.none() &&
      record.replication == request.replication) {
    return record.generation;
  }
  if (facts.blank) {
    return Error(Reason::kBaseMismatch,
                 "volume " + options_.volume +
                     ": is blank; there is nothing to compare with");
  }
  if (request.dry_run) return Id128{};
  SNAPSYNC_ASSIGN_OR_RETURN(const Receipt receipt,
                            Adopt(request, peer, facts, std::move(record)));
  return receipt.generation;
}

absl::StatusOr<HashStart> Replica::StartHash(const HashRequest& request,
                                             const std::string& peer) {
  MutexLock lock(&mutex_);
  HashStart start;
  SNAPSYNC_ASSIGN_OR_RETURN(start.generation, BeginComparing(request, peer));
  SNAPSYNC_ASSIGN_OR_RETURN(std::unique_ptr<BlockReader> reader,
                            target_->OpenReader());
  start.hasher =
      std::make_shared<Hasher>(std::move(reader), request.source_size,
                               request.first_block, options_.threads);
  hashing_ = start.hasher;
  hashing_peer_ = peer;
  return start;
}

absl::StatusOr<Changes> Replica::ChangedSince(const ChangesRequest& request,
                                              const std::string& peer) {
  MutexLock lock(&mutex_);
  SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<Id128> common,
                            target_->FindGeneration(request.candidates));
  if (!common) {
    return Error(Reason::kBaseMismatch,
                 "volume " + options_.volume +
                     " has no snapshot of a generation that the sender holds");
  }
  Changes changes;
  changes.common = *common;
  SNAPSYNC_ASSIGN_OR_RETURN(changes.generation,
                            BeginComparing(request.target, peer));
  if (changes.generation.none()) {
    return Error(Reason::kBaseMismatch,
                 "volume " + options_.volume +
                     ": what it holds would first become a generation, which a "
                     "dry run does not do");
  }
  SNAPSYNC_ASSIGN_OR_RETURN(const TargetRecord record, LoadRecord());
  SNAPSYNC_ASSIGN_OR_RETURN(changes.extents,
                            target_->ChangedSince(*common, record.number));
  return changes;
}

absl::StatusOr<SendSource> Replica::PrepareSend(uint64_t number, bool dry_run) {
  MutexLock lock(&mutex_);
  SNAPSYNC_ASSIGN_OR_RETURN(TargetRecord record, LoadRecord());
  if (record.state == TargetState::kCommitting) {
    SNAPSYNC_RETURN_IF_ERROR(FinishCommit(record).status());
    SNAPSYNC_ASSIGN_OR_RETURN(record, LoadRecord());
  }
  SendSource source;
  source.number = number;
  if (options_.kind == "qcow2") {
    if (number != 0) {
      return Error(Reason::kTargetUnsuitable,
                   "volume " + options_.volume +
                       ": an image is sent as it is now, without @GENERATION");
    }
    if (live_ != nullptr && live_->active()) return BeingWritten(record);
    SNAPSYNC_ASSIGN_OR_RETURN(source.path, target_->GenerationPath(0));
    source.number = record.number;
    source.is_image = true;
    return source;
  }
  if (number == 0) {
    if (record.generation.none() || record.state == TargetState::kTorn) {
      return Error(Reason::kTargetUnsuitable,
                   "volume " + options_.volume +
                       " holds no committed generation that could be sent");
    }
    if (live_ != nullptr && live_->active()) return BeingWritten(record);
    SNAPSYNC_ASSIGN_OR_RETURN(const TargetFacts facts, target_->Inspect());
    const absl::Status sealed = target_->CheckSeal(record.seal);
    if (!sealed.ok() && ReasonOf(sealed) != Reason::kBaseMismatch) {
      return sealed;
    }
    source.number = record.number;
    source.from_promoted = record.promoted;
    if (!sealed.ok()) {
      if (!record.promoted) {
        return Error(Reason::kBaseMismatch,
                     std::string(MessageOf(sealed)) +
                         "; `snapsync-agent promote " + options_.volume +
                         "` says that this is meant, @NUMBER sends what was "
                         "committed before");
      }
      if (dry_run) {
        return Error(Reason::kBaseMismatch,
                     "volume " + options_.volume +
                         ": what it holds would first become a generation, "
                         "which a dry run does not do");
      }
      HashRequest request;
      request.replication = record.replication;
      request.source = "promoted " + options_.volume;
      SNAPSYNC_ASSIGN_OR_RETURN(
          const Receipt adopted,
          Adopt(request, kOwnPeer, facts, std::move(record)));
      source.number = adopted.number;
    }
  }
  SNAPSYNC_ASSIGN_OR_RETURN(record, LoadRecord());
  for (const GenerationRecord& generation : record.generations) {
    if (generation.number == source.number)
      source.size = generation.source_size;
  }
  if (source.size == 0) {
    return Error(Reason::kTargetUnsuitable,
                 "volume " + options_.volume + " has no generation " +
                     std::to_string(source.number) +
                     "; revert --list shows what there is");
  }
  SNAPSYNC_ASSIGN_OR_RETURN(source.path,
                            target_->GenerationPath(source.number));
  return source;
}

absl::Status Replica::Promote() {
  MutexLock lock(&mutex_);
  SNAPSYNC_ASSIGN_OR_RETURN(TargetRecord record, LoadRecord());
  if (record.state == TargetState::kCommitting) {
    SNAPSYNC_RETURN_IF_ERROR(FinishCommit(record).status());
    SNAPSYNC_ASSIGN_OR_RETURN(record, LoadRecord());
  }
  if (record.promoted) return absl::OkStatus();
  if (record.state == TargetState::kTorn || record.generation.none()) {
    return Error(Reason::kTargetUnsuitable,
                 "volume " + options_.volume + " is " +
                     std::string(NameOf(record.state)) +
                     ": it holds no whole generation to be promoted");
  }
  if (live_ != nullptr && live_->active()) return BeingWritten(record);
  DropLive();
  SNAPSYNC_RETURN_IF_ERROR(EndSession(record));
  record.promoted = true;
  Log(Severity::kInfo, "volume " + options_.volume +
                           ": promoted at generation " +
                           std::to_string(record.number));
  return store_->Save(options_.volume, record);
}

absl::Status Replica::EndPromotion() {
  MutexLock lock(&mutex_);
  SNAPSYNC_ASSIGN_OR_RETURN(TargetRecord record, LoadRecord());
  if (!record.promoted) return absl::OkStatus();
  SNAPSYNC_RETURN_IF_ERROR(target_->Inspect().status());
  SNAPSYNC_RETURN_IF_ERROR(target_->CheckSeal(record.seal));
  record.promoted = false;
  Log(Severity::kInfo, "volume " + options_.volume + ": receives again");
  return store_->Save(options_.volume, record);
}

absl::StatusOr<Receipt> Replica::Adopt(const HashRequest& request,
                                       const std::string& peer,
                                       const TargetFacts& facts,
                                       TargetRecord record) {
  Log(Severity::kInfo, "volume " + options_.volume +
                           ": what it holds becomes a generation of "
                           "replication \"" +
                           request.replication + "\"");
  DropLive();
  SNAPSYNC_RETURN_IF_ERROR(EndSession(record));
  record.identity = facts.identity;
  SessionRecord session;
  session.id = Id128::Random();
  session.generation = Id128::Random();
  session.replication = request.replication;
  session.source = request.source;
  session.owner = peer;
  session.source_size = facts.size;
  record.session = std::move(session);
  // Nothing is written to a target in place: it is never torn by this.
  if (!target_->in_place()) {
    record.state = TargetState::kFilling;
    SNAPSYNC_RETURN_IF_ERROR(store_->Save(options_.volume, record));
  }
  SNAPSYNC_ASSIGN_OR_RETURN(record.session->stage,
                            target_->CreateStage(facts.size, true));
  record.state = TargetState::kCommitting;
  SNAPSYNC_RETURN_IF_ERROR(store_->Save(options_.volume, record));
  return FinishCommit(std::move(record));
}

}  // namespace snapsync
