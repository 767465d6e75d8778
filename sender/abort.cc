// SPDX-License-Identifier: Apache-2.0
#include "sender/abort.h"

#include <optional>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "sender/replication_state.h"
#include "sender/source.h"

namespace snapsync {

absl::Status RunAbort(const SyncOptions& options, AgentClient& agent,
                      SyncResult& result) {
  SNAPSYNC_ASSIGN_OR_RETURN(
      const ReplicationStore store,
      ReplicationStore::Open(options.source.state_directory,
                             options.replication, options.destination));
  SNAPSYNC_ASSIGN_OR_RETURN(ReplicationState state, store.Load());
  SNAPSYNC_ASSIGN_OR_RETURN(const VolumeState before,
                            agent.Describe(options.volume));
  if (!before.replication.empty() &&
      before.replication != options.replication) {
    return Error(Reason::kTargetUnsuitable,
                 "volume " + before.name + " is the replica of --uuid \"" +
                     before.replication + "\", not of \"" +
                     options.replication + "\"");
  }
  if (options.take_over) {
    SNAPSYNC_RETURN_IF_ERROR(agent.TakeOver(options.volume));
  }
  SNAPSYNC_RETURN_IF_ERROR(agent.AbortSession(options.volume));
  SNAPSYNC_ASSIGN_OR_RETURN(const VolumeState now,
                            agent.Describe(options.volume));
  result.generation = now.generation;
  result.number = now.number;
  const bool open = before.state == "filling" || before.state == "torn" ||
                    before.state == "committing";
  result.result = open || state.pending ? "aborted" : "unchanged";
  if (now.state == "torn") {
    result.warnings.push_back("volume " + now.name +
                              " stays torn: it is written in place; the next "
                              "sync writes all of it");
  }
  if (!state.pending) return RemoveUnneeded(store, state, {});
  const SnapshotName snapshot = state.pending->snapshot;
  const bool is_base = state.base && state.base->snapshot.name == snapshot.name;
  if (snapshot.ours && !is_base) state.unneeded.push_back(snapshot);
  state.pending.reset();
  SNAPSYNC_RETURN_IF_ERROR(store.Save(state));
  SNAPSYNC_RETURN_IF_ERROR(store.RemovePlan());
  return RemoveUnneeded(store, state, {});
}

}  // namespace snapsync
