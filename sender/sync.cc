// SPDX-License-Identifier: Apache-2.0
#include "sender/sync.h"

#include <unistd.h>

#include <array>
#include <memory>
#include <optional>
#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "sender/planner.h"
#include "sender/replication_state.h"
#include "sender/saved_base.h"

namespace snapsync {
namespace {

std::string HostName() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  return name.data();
}

// Trying again with the same snapshot can't help; where there is no room, a
// newer one may need less. `began`: a part of it was sent, by this run or an
// earlier one, and is not lost.
bool IsFinal(const absl::Status& status, bool began) {
  const Reason reason = ReasonOf(status);
  if (reason == Reason::kNoSpace) return !began;
  return reason == Reason::kBaseMismatch ||
         reason == Reason::kTargetUnsuitable || reason == Reason::kUsage;
}

class Sync {
 public:
  Sync(const SyncOptions& options, AgentClient& agent, ReplicationStore store,
       SyncResult& result)
      : options_(options),
        agent_(agent),
        store_(std::move(store)),
        result_(result) {}

  absl::Status Run() {
    SNAPSYNC_ASSIGN_OR_RETURN(state_, store_.Load());
    // Asked before a snapshot is made: while the agent is away, the pool must
    // not fill with snapshots.
    SNAPSYNC_ASSIGN_OR_RETURN(const VolumeState target, AskAgent());
    allocation_unit_ = target.allocation_unit;
    SNAPSYNC_ASSIGN_OR_RETURN(const SourceFacts facts,
                              ExamineSource(options_.source));
    SNAPSYNC_RETURN_IF_ERROR(CheckIsAnother(options_.source, facts, target));
    if (options_.take_over && !options_.dry_run) {
      SNAPSYNC_RETURN_IF_ERROR(agent_.TakeOver(options_.volume));
    }
    group_ = facts.group;
    SNAPSYNC_ASSIGN_OR_RETURN(snapshot_, ChooseSnapshot(facts));
    absl::Status status = SendSnapshot(target);
    // Nothing is open any more: what is not needed can go.
    const bool drop =
        options_.dry_run ? made_now_ : !status.ok() && IsFinal(status, began_);
    // The base is needed whatever became of a repair that sent it again.
    const bool is_base = state_.base &&
                         state_.base->snapshot.group == snapshot_.group &&
                         state_.base->snapshot.name == snapshot_.name;
    if (drop && snapshot_.ours && !is_base) {
      state_.unneeded.push_back(snapshot_);
      state_.pending.reset();
      SNAPSYNC_RETURN_IF_ERROR(store_.Save(state_));
      SNAPSYNC_RETURN_IF_ERROR(store_.RemovePlan());
    }
    RemoveUnneeded();
    return status;
  }

 private:
  absl::StatusOr<VolumeState> AskAgent() {
    SNAPSYNC_ASSIGN_OR_RETURN(VolumeState target,
                              agent_.Describe(options_.volume));
    if (target.problem_reason != 0) {
      return Error(static_cast<Reason>(target.problem_reason),
                   "volume " + target.name + ": " + target.problem);
    }
    if (options_.to_image && target.kind != "qcow2") {
      return Error(Reason::kTargetUnsuitable, "volume " + target.name +
                                                  " is of kind " + target.kind +
                                                  ", no QCOW2 image: use sync");
    }
    return target;
  }

  // The snapshot to send: --src itself, or one made of the origin. One that an
  // interrupted run made is taken again.
  absl::StatusOr<SnapshotName> ChooseSnapshot(const SourceFacts& facts) {
    if (!facts.volume) return SnapshotName{};
    const LogicalVolume& volume = *facts.volume;
    if (!facts.is_origin) {
      // The base again, to repair the replica: whose it is stays.
      if (state_.base && state_.base->snapshot.group == volume.group &&
          state_.base->snapshot.name == volume.name) {
        return state_.base->snapshot;
      }
      return SnapshotName{volume.group, volume.name, false};
    }
    if (!state_.pending || !state_.pending->snapshot.ours ||
        state_.pending->snapshot.group != volume.group) {
      PendingState pending;
      pending.generation = Id128::Random();
      pending.snapshot = {
          volume.group, volume.name + ".snapsync-" + pending.generation.Short(),
          true};
      state_.pending = pending;
      SNAPSYNC_RETURN_IF_ERROR(store_.Save(state_));
      made_now_ = true;
    }
    const SnapshotName name = state_.pending->snapshot;
    for_this_ = true;
    if (absl::Status s = MakeSnapshot(facts, name); !s.ok()) {
      // It may be there all the same.
      state_.unneeded.push_back(name);
      state_.pending.reset();
      SNAPSYNC_RETURN_IF_ERROR(store_.Save(state_));
      RemoveUnneeded();
      return s;
    }
    return name;
  }

  absl::Status SendSnapshot(const VolumeState& target) {
    SNAPSYNC_ASSIGN_OR_RETURN(
        const std::unique_ptr<SourceSnapshot> source,
        SourceSnapshot::Open(options_.source, snapshot_, for_this_));
    // An interrupted sync is gone on with if this is the snapshot that it had.
    // A thick device may have changed meanwhile: its syncs begin anew.
    const bool continues = state_.pending &&
                           state_.pending->identity == source->identity() &&
                           source->keeps_contents();
    ReplicationState known = state_;
    if (!continues) known.pending.reset();
    Planner planner(*source, agent_, store_, OptionsOfPlanner(*source));
    SNAPSYNC_ASSIGN_OR_RETURN(PlannedSync planned, planner.Plan(known, target));
    Announce(planned, *source);
    if (options_.dry_run) {
      result_.result = "dry-run";
      return absl::OkStatus();
    }
    if (options_.source.image && target.kind == "block") {
      // Written in place: what can't be read must show before.
      SNAPSYNC_RETURN_IF_ERROR(source->ReadThrough(planned.plan.changed(),
                                                   options_.pump.interrupted));
    }
    absl::Status status = Send(planned, *source, continues);
    if (continues && IsBaseMismatch(status)) {
      // The agent can't go on where the interrupted sync was. From the start.
      known.pending.reset();
      SNAPSYNC_ASSIGN_OR_RETURN(const VolumeState now, AskAgent());
      SNAPSYNC_ASSIGN_OR_RETURN(planned, planner.Plan(known, now));
      Announce(planned, *source);
      status = Send(planned, *source, false);
    }
    if (!planned.base.none() && IsRefusal(status)) {
      SNAPSYNC_ASSIGN_OR_RETURN(planned,
                                planner.PlanAfterRefusal(status, target));
      Announce(planned, *source);
      status = Send(planned, *source, false);
    }
    if (options_.source.image && !status.ok() &&
        (ReasonOf(status) == Reason::kIo ||
         ReasonOf(status) == Reason::kOther)) {
      GiveUp();
    }
    return status;
  }

  // The image will be no better next time: nothing of it stays.
  void GiveUp() {
    absl::Status status = agent_.AbortSession(options_.volume);
    state_.pending.reset();
    if (status.ok()) status = store_.Save(state_);
    if (status.ok()) status = store_.RemovePlan();
    if (status.ok()) return;
    result_.warnings.push_back("the session could not be given up: " +
                               std::string(MessageOf(status)));
  }

  PlannerOptions OptionsOfPlanner(const SourceSnapshot& source) const {
    PlannerOptions options;
    options.volume = options_.volume;
    options.replication = options_.replication;
    options.source = NameOf(source);
    options.method = options_.method;
    options.overwrite = options_.overwrite;
    options.allow_full = options_.allow_full;
    options.dry_run = options_.dry_run;
    options.read_ahead = options_.pump.read_ahead;
    options.interrupted = options_.pump.interrupted;
    options.notice = options_.pump.notice;
    return options;
  }

  // For people.
  static std::string NameOf(const SourceSnapshot& source) {
    return HostName() + ":" + source.path();
  }

  static bool IsBaseMismatch(const absl::Status& status) {
    return !status.ok() && ReasonOf(status) == Reason::kBaseMismatch;
  }

  static bool IsRefusal(const absl::Status& status) {
    return IsBaseMismatch(status) ||
           (!status.ok() && ReasonOf(status) == Reason::kTargetUnsuitable);
  }

  void Announce(const PlannedSync& planned, const SourceSnapshot& source) {
    result_.method = planned.method;
    result_.why = planned.why;
    result_.data_bytes = planned.plan.changed_bytes();
    result_.gone_bytes = planned.plan.gone_bytes();
    result_.warnings = planned.warnings;
    options_.pump.notice("sending " + source.path() + " by method " +
                         planned.method + ": " + planned.why);
  }

  absl::Status Send(const PlannedSync& planned, SourceSnapshot& source,
                    bool continues) {
    const bool unchanged = planned.plan.empty() && !planned.base.none();
    PendingState pending;
    // One that only asked whether the target is at its base made nothing new,
    // and what is sent now must not pass for that base.
    const bool same =
        continues && state_.pending->generation != state_.pending->base;
    pending.generation = same ? state_.pending->generation : Id128::Random();
    if (unchanged) pending.generation = planned.base;
    pending.base = planned.base;
    pending.covers_all = planned.covers_all;
    pending.method = planned.method;
    pending.snapshot = snapshot_;
    pending.identity = source.identity();
    pending.kept_plan = planned.keep && !unchanged;
    if (pending.kept_plan) {
      SNAPSYNC_RETURN_IF_ERROR(
          store_.SavePlan({pending.generation, pending.base, planned.plan}));
    }
    state_.pending = pending;
    SNAPSYNC_RETURN_IF_ERROR(store_.Save(state_));

    SessionRequest request;
    request.volume = options_.volume;
    request.replication = options_.replication;
    request.source = NameOf(source);
    request.base = planned.base;
    request.generation = pending.generation;
    request.source_size = planned.plan.source_size();
    request.plan_digest = planned.plan.digest();
    request.chunk_count = planned.plan.chunk_count();
    request.covers_all = planned.covers_all;
    request.allow_overwrite = options_.overwrite;
    request.no_verify = options_.no_verify;
    // What a source without metadata holds is zeroes perhaps.
    if (allocation_unit_ != 0 && source.has_metadata()) {
      request.new_bytes =
          planned.plan.changed().BytesInBlocks(allocation_unit_);
    }
    request.image = options_.image;
    began_ |= continues;
    PumpOptions pump = options_.pump;
    pump.progress = [this](const PumpProgress& progress) {
      began_ = true;
      options_.pump.progress(progress);
    };
    SNAPSYNC_ASSIGN_OR_RETURN(
        const PumpResult sent,
        Pump(agent_, request, planned.plan, source.reader(), pump));

    result_.result = unchanged ? "unchanged" : "ok";
    result_.generation = sent.receipt.generation;
    result_.number = sent.receipt.number;
    result_.zero_bytes = sent.zero_bytes;
    result_.data_bytes -= sent.zero_bytes;
    result_.sent_bytes = sent.data_bytes;
    result_.resumed_from_bytes = sent.resumed_from_bytes;
    return Remember(planned, source, sent.receipt.generation);
  }

  // The receipt is here: this snapshot is the base of the next sync, and the
  // one before it is not needed any more.
  absl::Status Remember(const PlannedSync& planned,
                        const SourceSnapshot& source, const Id128& generation) {
    if (state_.base && state_.base->snapshot.ours &&
        state_.base->snapshot.name != snapshot_.name) {
      state_.unneeded.push_back(state_.base->snapshot);
    }
    // One that could not be removed so far, and was given as --src.
    std::erase_if(state_.unneeded, [this](const SnapshotName& snapshot) {
      return snapshot.group == snapshot_.group &&
             snapshot.name == snapshot_.name;
    });
    had_saved_ = state_.base && state_.base->saved;
    state_.pending.reset();
    state_.base.reset();
    if (planned.record) {
      state_.base =
          BaseState{generation, snapshot_, *planned.record, std::nullopt};
      // Without it a later revert finds less in common, and sends more.
      if (absl::Status s = source.Mark(generation, *planned.record); !s.ok()) {
        result_.warnings.push_back(std::string(MessageOf(s)));
      }
      if (options_.save_mappings) SaveMappings(source);
    }
    SNAPSYNC_RETURN_IF_ERROR(store_.Save(state_));
    if (had_saved_ || options_.save_mappings) RemoveOtherSaved(source);
    return store_.RemovePlan();
  }

  // The sync is done already: what fails here costs the next one more.
  void SaveMappings(const SourceSnapshot& source) {
    if (!source.volume()) {
      result_.warnings.push_back(source.path() +
                                 " is no volume of LVM: its mappings are not "
                                 "saved");
      return;
    }
    absl::StatusOr<SavedBase> saved =
        SaveBase(*source.volume(), source.metadata(), state_.base->record,
                 state_.base->generation, store_);
    if (saved.ok()) {
      state_.base->saved = *std::move(saved);
    } else {
      result_.warnings.push_back("the base's mappings could not be saved: " +
                                 std::string(MessageOf(saved.status())));
    }
  }

  void RemoveOtherSaved(const SourceSnapshot& source) {
    if (!source.volume()) return;
    if (absl::Status s =
            RemoveOtherSavedBases(source.volume()->group, state_, store_);
        !s.ok()) {
      result_.warnings.push_back("old saved mappings could not be removed: " +
                                 std::string(MessageOf(s)));
    }
  }

  // By what is durable alone: a state that could not be saved names a base that
  // the one on the disk still needs.
  void RemoveUnneeded() {
    absl::StatusOr<ReplicationState> stored = store_.Load();
    const absl::Status s =
        stored.ok() ? snapsync::RemoveUnneeded(store_, *stored, group_)
                    : stored.status();
    if (!s.ok()) {
      result_.warnings.push_back(
          "a snapshot that is not needed any more could not be removed: " +
          std::string(MessageOf(s)));
    }
  }

  const SyncOptions& options_;
  AgentClient& agent_;
  const ReplicationStore store_;
  SyncResult& result_;
  ReplicationState state_;
  VolumeGroup group_;  // the source's, before anything was changed
  SnapshotName snapshot_;
  uint64_t allocation_unit_ = 0;  // of the target, bytes
  bool made_now_ = false;         // the snapshot, by this run
  bool for_this_ = false;         // it was made for this sync, now or before
  bool began_ = false;            // to send it
  bool had_saved_ = false;        // mappings of the base before
};

}  // namespace

absl::Status RunSync(const SyncOptions& options, AgentClient& agent,
                     SyncResult& result) {
  SNAPSYNC_ASSIGN_OR_RETURN(
      ReplicationStore store,
      ReplicationStore::Open(options.source.state_directory,
                             options.replication, options.destination));
  return RunSync(options, std::move(store), agent, result);
}

absl::Status RunSync(const SyncOptions& options, ReplicationStore store,
                     AgentClient& agent, SyncResult& result) {
  return Sync(options, agent, std::move(store), result).Run();
}

}  // namespace snapsync
