// SPDX-License-Identifier: Apache-2.0
#include "sender/planner.h"

#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace snapsync {
namespace {

// The plan of the sync under way, made again as it was.
absl::StatusOr<PlannedSync> PlanAgain(SourceSnapshot& source,
                                      const ReplicationState& state) {
  const PendingState& pending = *state.pending;
  if (pending.base.none()) {
    return PlanFull(source, !pending.covers_all, "first sync, continued");
  }
  if (!state.base || state.base->generation != pending.base) {
    return Error(Reason::kBaseMismatch,
                 "the base of the interrupted sync is not known any more");
  }
  return PlanDelta(source, *state.base);
}

// Whether the target is in the middle of, or just after, the pending sync.
bool TargetIsAtPending(const PendingState& pending, const VolumeState& target) {
  if (target.generation == pending.generation) return true;  // reply was lost
  return target.state == "filling" || target.state == "torn" ||
         target.state == "committing";
}

}  // namespace

absl::StatusOr<PlannedSync> PlanDelta(const SourceSnapshot& source,
                                      const BaseState& base) {
  SNAPSYNC_ASSIGN_OR_RETURN(GuardedDelta found, source.DeltaFrom(base.record));
  const uint64_t size = found.record.device_size;
  return PlannedSync{
      Plan(size, std::move(found.delta.changed), std::move(found.delta.gone)),
      "metadata",
      "the base of generation " + base.generation.ToString().substr(0, 8) +
          " is still in the pool",
      base.generation,
      false,
      std::move(found.record),
      std::move(found.warnings)};
}

absl::StatusOr<PlannedSync> PlanFull(SourceSnapshot& source,
                                     bool target_is_blank,
                                     const std::string& why) {
  const uint64_t size = source.reader().size();
  if (!source.has_metadata()) {
    ExtentList all;
    all.Append({0, size});
    return PlannedSync{
        Plan(size, std::move(all), ExtentList()),
        "full",
        why,
        Id128{},
        true,
        std::nullopt,
        {source.path() +
         " is not a thin snapshot: its contents must not change meanwhile"}};
  }
  SNAPSYNC_ASSIGN_OR_RETURN(GuardedDelta found, source.DeltaFrom(std::nullopt));
  ExtentList gone;
  if (!target_is_blank) gone = found.delta.changed.ComplementIn(size);
  return PlannedSync{
      Plan(size, std::move(found.delta.changed), std::move(gone)),
      "full",
      why,
      Id128{},
      !target_is_blank,
      std::move(found.record),
      std::move(found.warnings)};
}

absl::StatusOr<PlannedSync> PlanSync(SourceSnapshot& source,
                                     const ReplicationState& state,
                                     const VolumeState& target,
                                     const std::string& replication,
                                     bool allow_full) {
  const bool torn = target.state == "torn";
  if (state.pending && source.has_metadata() &&
      TargetIsAtPending(*state.pending, target)) {
    absl::StatusOr<PlannedSync> again = PlanAgain(source, state);
    if (again.ok() || ReasonOf(again.status()) != Reason::kBaseMismatch) {
      return again;
    }
  }
  if (torn) {
    return PlanFull(source, false,
                    "the target is torn by an interrupted sync that can't be "
                    "resumed: all of it is written anew");
  }
  if (target.generation.none()) {
    if (target.blank) return PlanFull(source, true, "first sync");
    if (allow_full) {
      return PlanFull(source, false, "first sync, over what is on the target");
    }
    return Error(Reason::kTargetUnsuitable,
                 "volume " + target.name +
                     ": the target is not empty; if what is on it may be "
                     "overwritten, say --allow-full");
  }
  if (!allow_full && target.replication != replication) {
    return Error(Reason::kTargetUnsuitable,
                 "volume " + target.name + ": it is the replica of --uuid \"" +
                     target.replication + "\", not of \"" + replication +
                     "\"; choose another volume, or --allow-full starts anew");
  }
  std::string why = "this sender has no base for generation " +
                    target.generation.ToString().substr(0, 8) +
                    ", which the target holds";
  if (state.base && state.base->generation == target.generation) {
    absl::StatusOr<PlannedSync> delta = PlanDelta(source, *state.base);
    if (delta.ok() || ReasonOf(delta.status()) != Reason::kBaseMismatch) {
      return delta;
    }
    why = std::string(MessageOf(delta.status()));
  } else if (state.base) {
    why = "the target holds generation " +
          target.generation.ToString().substr(0, 8) +
          ", this sender's base is " +
          state.base->generation.ToString().substr(0, 8);
  }
  if (allow_full) return PlanFull(source, false, why);
  return Error(Reason::kBaseMismatch,
               why +
                   "; no delta can be trusted. --allow-full sends everything "
                   "again");
}

}  // namespace snapsync
