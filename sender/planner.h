// SPDX-License-Identifier: Apache-2.0
//
// Which blocks to send, and by which method: takes the best one of the ladder
// whose conditions hold, and says why it had to step down.
//
//   metadata  the base is in the pool still and passes all guards: what
//             differs; or another generation is there that both sides hold:
//             what either side has changed since
//   saved     the base is gone, but its mappings were saved: what differs from
//             those
//   hash      the target holds something: what differs from that, by comparing
//   full      all that is mapped (of a thick source: all of it)
//
// A target that is not, or no longer, a generation of this replication is
// overwritten only when the operator agreed.
#ifndef SNAPSYNC_SENDER_PLANNER_H_
#define SNAPSYNC_SENDER_PLANNER_H_

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/thin/base_record.h"
#include "common/transfer/plan.h"
#include "common/transfer/session_protocol.h"
#include "sender/agent_client.h"
#include "sender/replication_state.h"
#include "sender/source.h"

namespace snapsync {

struct PlannedSync {
  Plan plan;
  std::string method;  // "metadata", "saved", "hash", "full"
  std::string why;     // one sentence
  Id128 base;          // none for full
  // Every byte of the source's size is in the plan.
  bool covers_all = false;
  // It could not be made again while the target is written: it is to be kept
  // until the commit.
  bool keep = false;
  // Of the snapshot, for the next sync; none for a thick source.
  std::optional<BaseRecord> record;
  std::vector<std::string> warnings;
};

struct PlannerOptions {
  std::string volume;           // as the agent knows it
  std::string replication;      // --uuid
  std::string source;           // for people: host and path
  std::string method = "auto";  // --method: auto, or the only one allowed
  bool overwrite = false;       // --yes, --allow-full: the operator agreed
  bool allow_full = false;      // --allow-full: send all rather than compare
  bool dry_run = false;
  bool read_ahead = true;  // read with a thread of its own
  std::function<bool()> interrupted;
  std::function<void(const std::string&)> notice;  // a line for people
};

class Planner {
 public:
  // All must outlive it.
  Planner(SourceSnapshot& source, AgentClient& agent,
          const ReplicationStore& store, PlannerOptions options)
      : source_(source),
        agent_(agent),
        store_(store),
        options_(std::move(options)) {}

  // The best plan for a target in this state; for a sync under way the same
  // plan again. When the target would be overwritten and `overwrite` is false:
  // kTargetUnsuitable for what is not a replica of this replication,
  // kBaseMismatch for one that was written to.
  absl::StatusOr<PlannedSync> Plan(const ReplicationState& state,
                                   const VolumeState& target);

  // After the agent refused a plan that has a base: the target is not what the
  // plan starts from. Without `overwrite` the refusal, with what to do.
  absl::StatusOr<PlannedSync> PlanAfterRefusal(const absl::Status& refusal,
                                               const VolumeState& target);

 private:
  absl::StatusOr<PlannedSync> PlanAgain(const ReplicationState& state);
  absl::StatusOr<PlannedSync> PlanReplica(const ReplicationState& state,
                                          const VolumeState& target);
  absl::StatusOr<PlannedSync> Overwrite(const VolumeState& target,
                                        const std::string& why);
  absl::StatusOr<PlannedSync> Metadata(const ReplicationState& state,
                                       const VolumeState& target);
  absl::StatusOr<PlannedSync> Saved(const ReplicationState& state,
                                    const VolumeState& target);
  // The base is known, and is what the target holds.
  absl::Status CheckBaseKnown(const ReplicationState& state,
                              const VolumeState& target) const;
  // What either side has changed since a generation that both hold.
  struct SinceCommon {
    Id128 common;
    Id128 generation;  // that the target holds
    ExtentList extents;
  };
  // `held` are the source's, `request` names some of them.
  absl::StatusOr<SinceCommon> ChangedSince(
      const ChangesRequest& request, const std::vector<HeldGeneration>& held);
  // Since a generation that both sides hold: what either has changed.
  absl::StatusOr<PlannedSync> BothSides(const std::string& why);
  absl::StatusOr<PlannedSync> Hash(const std::string& why);
  HashRequest RequestOf(uint64_t source_size) const;
  // `target_is_zero`: what is not mapped reads as zeroes there already; else
  // it is part of the plan.
  absl::StatusOr<PlannedSync> Full(bool target_is_zero, const std::string& why);
  absl::StatusOr<PlannedSync> Mapped(const std::string& why) const;
  bool Forced(const char* method) const { return options_.method == method; }
  bool Allowed(const char* method) const {
    return options_.method == "auto" || Forced(method);
  }

  SourceSnapshot& source_;
  AgentClient& agent_;
  const ReplicationStore& store_;
  const PlannerOptions options_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_PLANNER_H_
