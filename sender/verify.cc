// SPDX-License-Identifier: Apache-2.0
#include "sender/verify.h"

#include <memory>
#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "sender/hash_delta.h"
#include "sender/replication_state.h"

namespace snapsync {
namespace {

class Verify {
 public:
  // Until it is destroyed no sync of the replication comes in between.
  Verify(const SyncOptions& options, ReplicationStore store, AgentClient& agent,
         VerifyResult& result)
      : options_(options),
        store_(std::move(store)),
        agent_(agent),
        result_(result) {}

  // Which snapshot --src means, as SourceSnapshot::Open() takes it.
  absl::Status ChooseSource(bool repair) {
    source_ = options_.source;
    SNAPSYNC_ASSIGN_OR_RETURN(const VolumeState target,
                              agent_.Describe(options_.volume));
    SNAPSYNC_ASSIGN_OR_RETURN(const ReplicationState state, store_.Load());
    // One of the base again is a repair that was interrupted.
    if (repair && state.pending &&
        !(state.base &&
          state.pending->snapshot.name == state.base->snapshot.name)) {
      return Error(Reason::kBusy,
                   "a sync of this replication was interrupted: run it again, "
                   "it goes on where it was; then verify");
    }
    SNAPSYNC_ASSIGN_OR_RETURN(const SourceFacts facts, ExamineSource(source_));
    SNAPSYNC_RETURN_IF_ERROR(CheckIsAnother(source_, facts, target));
    const bool known =
        state.base && state.base->generation == target.generation;
    result_.sync.generation = target.generation;
    result_.sync.number = target.number;
    if (!facts.volume) {
      result_.sync.warnings.push_back(
          source_.path +
          " is not a thin snapshot: its contents must not change meanwhile");
      return absl::OkStatus();
    }
    snapshot_ = {facts.volume->group, facts.volume->name, false};
    if (facts.is_origin) {
      if (!known) {
        return Error(Reason::kBaseMismatch,
                     "volume " + target.name +
                         " does not hold what this sender has sent last; sync "
                         "first, or give the snapshot that it should hold");
      }
      snapshot_ = state.base->snapshot;
      source_.path = "/dev/" + snapshot_.group + "/" + snapshot_.name;
      source_.id.reset();
    } else if (!known || state.base->snapshot.name != snapshot_.name) {
      result_.sync.warnings.push_back(source_.path +
                                      " is not the snapshot that " +
                                      target.name + " was synced with last");
    }
    return absl::OkStatus();
  }

  absl::StatusOr<ExtentList> Compare() {
    SNAPSYNC_ASSIGN_OR_RETURN(const std::unique_ptr<SourceSnapshot> source,
                              SourceSnapshot::Open(source_, snapshot_));
    HashRequest request;
    request.volume = options_.volume;
    request.replication = options_.replication;
    request.source = source->path();
    request.source_size = source->reader().size();
    request.dry_run = true;  // nothing is written
    ExtentList mapped;
    if (source->has_metadata()) {
      SNAPSYNC_ASSIGN_OR_RETURN(GuardedDelta all,
                                source->DeltaFrom(std::nullopt));
      mapped = std::move(all.delta.changed);
    } else {
      mapped.Append({0, request.source_size});
    }
    options_.pump.notice("comparing " + source->path() + " with " +
                         options_.volume);
    absl::StatusOr<HashDelta> delta = CompareWith(request, *source, mapped);
    if (!delta.ok() && ReasonOf(delta.status()) == Reason::kBaseMismatch) {
      // It is the replica, but not as it was committed. What is another's, or
      // on another device, stays refused: kTargetUnsuitable.
      result_.sync.warnings.push_back(std::string(MessageOf(delta.status())));
      request.allow_overwrite = true;
      delta = CompareWith(request, *source, mapped);
    }
    SNAPSYNC_RETURN_IF_ERROR(delta.status());
    result_.compared_bytes = request.source_size;
    return Union(delta->changed, delta->gone);
  }

  absl::Status Repair() {
    SyncOptions sync = options_;
    sync.source = source_;
    sync.method = "hash";
    sync.overwrite = true;
    sync.allow_full = false;
    sync.dry_run = false;
    return RunSync(sync, std::move(store_), agent_, result_.sync);
  }

 private:
  absl::StatusOr<HashDelta> CompareWith(const HashRequest& request,
                                        SourceSnapshot& source,
                                        const ExtentList& mapped) {
    return CompareByHash(agent_, request, source.reader(), mapped,
                         options_.pump.read_ahead, options_.pump.interrupted);
  }

  const SyncOptions& options_;
  ReplicationStore store_;
  AgentClient& agent_;
  VerifyResult& result_;
  SourceOptions source_;
  SnapshotName snapshot_;
};

absl::Status Different(const std::string& volume, const ExtentList& extents) {
  const Extent& first = extents.extents().front();
  return Error(Reason::kVerification,
               "volume " + volume + ": " + FormatBytes(extents.bytes()) +
                   " in " + std::to_string(extents.extents().size()) +
                   " extents differ, the first at offset " +
                   std::to_string(first.offset) + ", " +
                   std::to_string(first.length) +
                   " bytes; verify --repair sends them again");
}

}  // namespace

absl::Status RunVerify(const SyncOptions& options, bool repair,
                       AgentClient& agent, VerifyResult& result) {
  SNAPSYNC_ASSIGN_OR_RETURN(
      ReplicationStore store,
      ReplicationStore::Open(options.source.state_directory,
                             options.replication, options.destination));
  Verify verify(options, std::move(store), agent, result);
  SNAPSYNC_RETURN_IF_ERROR(verify.ChooseSource(repair));
  SNAPSYNC_ASSIGN_OR_RETURN(result.different, verify.Compare());
  result.result = result.different.empty() ? "equal" : "different";
  if (result.different.empty()) return absl::OkStatus();
  if (!repair) return Different(options.volume, result.different);
  SNAPSYNC_RETURN_IF_ERROR(verify.Repair());
  SNAPSYNC_ASSIGN_OR_RETURN(const ExtentList still, verify.Compare());
  if (!still.empty()) return Different(options.volume, still);
  result.result = "repaired";
  return absl::OkStatus();
}

}  // namespace snapsync
