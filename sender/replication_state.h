// SPDX-License-Identifier: Apache-2.0
//
// What the sender remembers of one replication (--uuid and --dst) between runs:
// the base that both ends hold, and the sync that is under way. One state file
// and one lock in a folder of its own; docs/formats.md has the text form.
//
// Invariants: `pending` is durable before the snapshot it names is made and
// before a session is opened with its generation, so that a run after a crash
// finds both; `base` is replaced only after the agent's receipt, and what is no
// longer needed is removed after the state that says so is durable. A plan that
// could not be made again is durable before `pending` is, in a file of its own.
#ifndef SNAPSYNC_SENDER_REPLICATION_STATE_H_
#define SNAPSYNC_SENDER_REPLICATION_STATE_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/file_lock.h"
#include "common/base/id128.h"
#include "common/thin/base_record.h"
#include "sender/saved_plan.h"

namespace snapsync {

// A snapshot of the source, as it is found again. Empty fields where there is
// no LVM.
struct SnapshotName {
  std::string group;
  std::string name;
  bool ours = false;  // made by us from an origin, and removed by us
};

// What is left of a base when its snapshot is gone (saved_base.h).
struct SavedBase {
  Id128 mappings;  // names the file
  WitnessRecord witness;
};

struct BaseState {
  Id128 generation;
  SnapshotName snapshot;
  BaseRecord record;
  std::optional<SavedBase> saved;
};

struct PendingState {
  Id128 generation;  // that the commit will make
  Id128 base;        // none: full
  bool covers_all = false;
  std::string method;  // of PlannedSync; empty until there is a plan
  // The plan is kept in a file of its own, since it could not be made again.
  bool kept_plan = false;
  SnapshotName snapshot;
  // Which snapshot it is, once it exists: a generation must never name two.
  std::string identity;
};

struct ReplicationState {
  std::optional<BaseState> base;
  std::optional<PendingState> pending;
  // Snapshots of ours that are to be removed: a run that is killed in between
  // leaves it to the next one.
  std::vector<SnapshotName> unneeded;
};

class ReplicationStore {
 public:
  // Takes the lock of the replication. kBusy when another run has it.
  static absl::StatusOr<ReplicationStore> Open(
      const std::string& state_directory, const std::string& replication,
      const std::string& destination);

  absl::StatusOr<ReplicationState> Load() const;
  // Durable when it returns OK.
  absl::Status Save(const ReplicationState& state) const;

  // The plan that `pending` speaks of. Loading is kBaseMismatch when there is
  // none, or none that can be read: nothing else can be concluded from that.
  absl::StatusOr<SavedPlan> LoadPlan() const;
  absl::Status SavePlan(const SavedPlan& saved) const;
  absl::Status RemovePlan() const;

  // Where the mappings of a base are.
  std::string MappingsPath(const Id128& id) const;
  // Removes all mappings but those that `state` names.
  absl::Status RemoveOtherMappings(const ReplicationState& state) const;

  // 32 hexadecimal digits that no other replication has.
  std::string name() const;

 private:
  ReplicationStore(FileLock lock, const std::string& folder);

  FileLock lock_;
  std::string folder_;
  std::string path_;
  std::string plan_path_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_REPLICATION_STATE_H_
