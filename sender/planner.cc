// SPDX-License-Identifier: Apache-2.0
#include "sender/planner.h"

#include <algorithm>
#include <vector>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "sender/hash_delta.h"

namespace snapsync {
namespace {

constexpr char kMetadata[] = "metadata";
constexpr char kSaved[] = "saved";
constexpr char kHash[] = "hash";
constexpr char kFull[] = "full";
constexpr char kAdvice[] =
    "--yes overwrites it, sending only what differs; --allow-full sends "
    "everything";

bool IsMismatch(const absl::Status& status) {
  return !status.ok() && ReasonOf(status) == Reason::kBaseMismatch;
}

// A refusal of the agent's, with what to do about it.
absl::Status Advised(const absl::Status& status) {
  const std::string message(MessageOf(status));
  if (!IsMismatch(status) || message.find(kAdvice) != std::string::npos) {
    return status;
  }
  return Error(Reason::kBaseMismatch, message + "; " + kAdvice);
}

PlannedSync FromBase(GuardedDelta found, const char* method,
                     const std::string& why, const Id128& base) {
  const uint64_t size = found.record.device_size;
  return {snapsync::Plan(size, std::move(found.delta.changed),
                         std::move(found.delta.gone)),
          method,
          why,
          base,
          false,
          false,
          std::move(found.record),
          std::move(found.warnings)};
}

auto FindHeld(const std::vector<HeldGeneration>& held,
              const Id128& generation) {
  return std::find_if(held.begin(), held.end(), [&](const HeldGeneration& one) {
    return one.generation == generation;
  });
}

// Whether the target is in the middle of, or just after, the pending sync.
bool TargetIsAtPending(const PendingState& pending, const VolumeState& target) {
  if (target.generation == pending.generation) return true;  // reply was lost
  return target.state == "filling" || target.state == "torn" ||
         target.state == "committing";
}

}  // namespace

absl::StatusOr<PlannedSync> Planner::Plan(const ReplicationState& state,
                                          const VolumeState& target) {
  const std::string volume = "volume " + target.name;
  if (state.pending && source_.keeps_contents() &&
      TargetIsAtPending(*state.pending, target) &&
      Allowed(state.pending->method.c_str())) {
    absl::StatusOr<PlannedSync> again = PlanAgain(state);
    if (!IsMismatch(again.status())) return again;
  }
  const bool torn = target.state == "torn";
  if (torn || (target.generation.none() && target.blank)) {
    if (!Allowed(kFull)) {
      return Error(Reason::kBaseMismatch,
                   "--method " + options_.method + ": " + volume + " is " +
                       (torn ? "torn by an interrupted sync"
                             : "blank, so there is nothing to start from") +
                       "; leave --method out");
    }
    return torn ? Full(false,
                       "the target is torn by an interrupted sync that can't "
                       "be resumed: all of it is written anew")
                // Of a plain device only a sample was looked at.
                : Full(target.kind != "block", "first sync");
  }
  if (!target.generation.none() && target.replication == options_.replication) {
    return PlanReplica(state, target);
  }
  const std::string what = target.generation.none()
                               ? "the target is not empty"
                               : "it is the replica of --uuid \"" +
                                     target.replication + "\", not of \"" +
                                     options_.replication + "\"";
  if (!options_.overwrite) {
    return Error(Reason::kTargetUnsuitable,
                 volume + ": " + what + "; " + kAdvice);
  }
  return Overwrite(target, what + ", and may be overwritten");
}

absl::StatusOr<PlannedSync> Planner::PlanReplica(const ReplicationState& state,
                                                 const VolumeState& target) {
  std::string why = "--method " + options_.method;
  if (Allowed(kMetadata)) {
    if (source_.has_metadata() && state.base &&
        source_.HoldsYounger(state.base->generation)) {
      absl::StatusOr<PlannedSync> younger =
          BothSides("the volume was brought back since the last sync");
      if (!IsMismatch(younger.status())) return younger;
    }
    absl::StatusOr<PlannedSync> delta = Metadata(state, target);
    if (!IsMismatch(delta.status())) return delta;
    if (Forced(kMetadata)) return Annotate(delta.status(), why);
    why = std::string(MessageOf(delta.status()));
  }
  if (Allowed(kSaved)) {
    absl::StatusOr<PlannedSync> delta = Saved(state, target);
    if (delta.ok() && !Forced(kSaved)) {
      delta->why = why + ", but its mappings were saved";
    }
    if (!IsMismatch(delta.status())) return delta;
    if (Forced(kSaved)) return Annotate(delta.status(), why);
    if (state.base && state.base->saved) {
      why += "; " + std::string(MessageOf(delta.status()));
    }
  }
  if (options_.overwrite) return Overwrite(target, why);
  if (Forced(kFull)) {
    return Error(Reason::kBaseMismatch,
                 "--method full: volume " + target.name + " holds generation " +
                     target.generation.Short() +
                     "; --allow-full says that it may be overwritten");
  }
  return Hash(why);
}

absl::StatusOr<PlannedSync> Planner::Overwrite(const VolumeState& target,
                                               const std::string& why) {
  // An image is written anew, whatever was there.
  const bool full = Forced(kFull) || target.blank || options_.allow_full ||
                    target.kind == "qcow2";
  if (!full && Allowed(kMetadata)) {
    absl::StatusOr<PlannedSync> delta = BothSides(why);
    if (!IsMismatch(delta.status()) || Forced(kMetadata)) return delta;
  }
  if (Forced(kMetadata)) {
    return Error(Reason::kBaseMismatch,
                 "--method metadata: volume " + target.name + ": " + why);
  }
  return full && !Forced(kHash) ? Full(false, why) : Hash(why);
}

absl::StatusOr<PlannedSync> Planner::PlanAfterRefusal(
    const absl::Status& refusal, const VolumeState& target) {
  if (!options_.overwrite || Forced(kMetadata)) return Advised(refusal);
  return Overwrite(target, std::string(MessageOf(refusal)));
}

absl::StatusOr<PlannedSync> Planner::PlanAgain(const ReplicationState& state) {
  const PendingState& pending = *state.pending;
  if (pending.base.none()) {
    return Full(!pending.covers_all, "first sync, continued");
  }
  if (pending.kept_plan) {
    SNAPSYNC_ASSIGN_OR_RETURN(SavedPlan saved, store_.LoadPlan());
    if (saved.generation != pending.generation || saved.base != pending.base) {
      return Error(Reason::kBaseMismatch,
                   "the plan that was saved is that of another sync");
    }
    SNAPSYNC_ASSIGN_OR_RETURN(PlannedSync planned,
                              Mapped("interrupted sync, continued"));
    planned.plan = std::move(saved.plan);
    planned.method = pending.method;
    planned.base = saved.base;
    planned.keep = true;
    return planned;
  }
  if (!state.base || state.base->generation != pending.base) {
    return Error(Reason::kBaseMismatch,
                 "the base of the interrupted sync is not known any more");
  }
  VolumeState target;
  target.generation = pending.base;
  return pending.method == kSaved ? Saved(state, target)
                                  : Metadata(state, target);
}

absl::Status Planner::CheckBaseKnown(const ReplicationState& state,
                                     const VolumeState& target) const {
  const std::string held = "generation " + target.generation.Short();
  if (!source_.has_metadata()) {
    return Error(Reason::kBaseMismatch,
                 source_.path() + " has no thin metadata");
  }
  if (!state.base) {
    return Error(Reason::kBaseMismatch, "this sender has no base for " + held +
                                            ", which the target holds");
  }
  if (state.base->generation != target.generation) {
    return Error(Reason::kBaseMismatch, "the target holds " + held +
                                            ", this sender's base is " +
                                            state.base->generation.Short());
  }
  return absl::OkStatus();
}

absl::StatusOr<PlannedSync> Planner::Metadata(const ReplicationState& state,
                                              const VolumeState& target) {
  SNAPSYNC_RETURN_IF_ERROR(CheckBaseKnown(state, target));
  SNAPSYNC_ASSIGN_OR_RETURN(GuardedDelta found,
                            source_.DeltaFrom(state.base->record));
  return FromBase(std::move(found), kMetadata,
                  "the base of generation " + target.generation.Short() +
                      " is still in the pool",
                  target.generation);
}

absl::StatusOr<PlannedSync> Planner::Saved(const ReplicationState& state,
                                           const VolumeState& target) {
  SNAPSYNC_RETURN_IF_ERROR(CheckBaseKnown(state, target));
  if (!state.base->saved) {
    return Error(Reason::kBaseMismatch,
                 "the base's mappings were not saved (--save-mappings)");
  }
  SNAPSYNC_ASSIGN_OR_RETURN(
      GuardedDelta found,
      source_.DeltaFromSaved(*state.base,
                             store_.MappingsPath(state.base->saved->mappings)));
  return FromBase(
      std::move(found), kSaved,
      "the mappings of generation " + target.generation.Short() + " were saved",
      target.generation);
}

// A plan of all that is mapped.
absl::StatusOr<PlannedSync> Planner::Mapped(const std::string& why) const {
  const uint64_t size = source_.reader().size();
  if (source_.has_metadata()) {
    SNAPSYNC_ASSIGN_OR_RETURN(GuardedDelta found,
                              source_.DeltaFrom(std::nullopt));
    return PlannedSync{
        snapsync::Plan(size, std::move(found.delta.changed), ExtentList()),
        kFull,
        why,
        Id128{},
        false,
        false,
        std::move(found.record),
        std::move(found.warnings)};
  }
  SNAPSYNC_ASSIGN_OR_RETURN(ExtentList data, source_.DataExtents());
  const bool covers_all = data.bytes() == size;
  std::vector<std::string> warnings;
  if (source_.is_thick()) {
    warnings.push_back(source_.path() +
                       " is not a thin snapshot: its contents "
                       "must not change meanwhile");
  }
  return PlannedSync{snapsync::Plan(size, std::move(data), ExtentList()),
                     kFull,
                     why,
                     Id128{},
                     covers_all,
                     false,
                     std::nullopt,
                     std::move(warnings)};
}

absl::StatusOr<PlannedSync> Planner::Full(bool target_is_zero,
                                          const std::string& why) {
  SNAPSYNC_ASSIGN_OR_RETURN(PlannedSync planned, Mapped(why));
  if (!target_is_zero && !planned.covers_all) {
    ExtentList mapped = planned.plan.changed();
    ExtentList gone = mapped.ComplementIn(planned.plan.source_size());
    planned.plan = snapsync::Plan(planned.plan.source_size(), std::move(mapped),
                                  std::move(gone));
    planned.covers_all = true;
  }
  return planned;
}

absl::StatusOr<PlannedSync> Planner::Hash(const std::string& why) {
  SNAPSYNC_ASSIGN_OR_RETURN(PlannedSync planned, Mapped(why));
  const HashRequest request = RequestOf(planned.plan.source_size());
  options_.notice("comparing " + source_.path() + " with what " +
                  options_.volume + " holds: " + why);
  absl::StatusOr<HashDelta> delta =
      CompareByHash(agent_, request, source_.reader(), planned.plan.changed(),
                    options_.read_ahead, options_.interrupted);
  if (!delta.ok()) {
    return options_.overwrite ? delta.status() : Advised(delta.status());
  }
  planned.plan = snapsync::Plan(request.source_size, std::move(delta->changed),
                                std::move(delta->gone));
  planned.method = kHash;
  planned.base = delta->base;
  planned.covers_all = false;
  planned.keep = true;
  return planned;
}

HashRequest Planner::RequestOf(uint64_t source_size) const {
  HashRequest request;
  request.volume = options_.volume;
  request.replication = options_.replication;
  request.source = options_.source;
  request.source_size = source_size;
  request.allow_overwrite = options_.overwrite;
  request.dry_run = options_.dry_run;
  return request;
}

absl::StatusOr<Planner::SinceCommon> Planner::ChangedSince(
    const ChangesRequest& request, const std::vector<HeldGeneration>& held) {
  SNAPSYNC_ASSIGN_OR_RETURN(const Changes theirs, agent_.ChangedSince(request));
  const auto common = FindHeld(held, theirs.common);
  if (common == held.end()) {
    return Error(Reason::kOther,
                 "the agent speaks of a generation that it was not asked for");
  }
  SinceCommon since{theirs.common, theirs.generation, theirs.extents};
  if (!source_.Is(common->snapshot) || !common->whole()) {
    SNAPSYNC_ASSIGN_OR_RETURN(const GuardedDelta delta,
                              source_.DeltaFrom(source_.RecordOfHeld(*common)));
    since.extents =
        Union(since.extents, Union(delta.delta.changed, delta.delta.gone));
  }
  return since;
}

absl::StatusOr<PlannedSync> Planner::BothSides(const std::string& why) {
  const std::vector<HeldGeneration> held = source_.has_metadata()
                                               ? source_.HeldGenerations()
                                               : std::vector<HeldGeneration>();
  if (held.empty()) {
    return Error(Reason::kBaseMismatch,
                 "the source's pool has no snapshot of any generation");
  }
  SNAPSYNC_ASSIGN_OR_RETURN(PlannedSync planned, Mapped(why));
  const uint64_t size = planned.plan.source_size();
  ChangesRequest request;
  request.target = RequestOf(size);
  for (const HeldGeneration& one : held) {
    if (request.candidates.size() == ChangesRequest::kMaxCandidates) break;
    request.candidates.push_back(one.generation);
  }
  SNAPSYNC_ASSIGN_OR_RETURN(SinceCommon since, ChangedSince(request, held));
  // The agent chose the youngest that it has. Ours may be younger: after a
  // revert to an older generation the two sides have either in common, and what
  // was brought back to what it was is a change since the one only.
  const auto chosen = FindHeld(held, since.common);
  request.candidates.clear();
  for (auto one = held.begin(); one != chosen; ++one) {
    if (one->snapshot.uuid != chosen->snapshot.uuid) {
      request.candidates.push_back(one->generation);
    }
  }
  if (!request.candidates.empty()) {
    absl::StatusOr<SinceCommon> other = ChangedSince(request, held);
    if (other.ok() && other->generation == since.generation &&
        other->extents.bytes() < since.extents.bytes()) {
      since = *std::move(other);
    }
  }
  const ExtentList all = since.extents.ClippedTo(size);
  const ExtentList& mapped = planned.plan.changed();
  ExtentList changed = Difference(all, mapped.ComplementIn(size));
  ExtentList gone = Difference(all, mapped);
  planned.plan = snapsync::Plan(size, std::move(changed), std::move(gone));
  planned.method = kMetadata;
  planned.why = "what either side changed since generation " +
                since.common.Short() + ", which both hold (" + why + ")";
  planned.base = since.generation;
  planned.covers_all = false;
  planned.keep = true;
  return planned;
}

}  // namespace snapsync
