// SPDX-License-Identifier: Apache-2.0
//
// Which blocks to send, and by which method: takes the best one of the ladder
// whose conditions hold, and says why it had to step down.
//
//   metadata  the base is in the pool still and passes all guards: what differs
//   full      all that is mapped (of a thick source: all of it)
#ifndef SNAPSYNC_SENDER_PLANNER_H_
#define SNAPSYNC_SENDER_PLANNER_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/thin/base_record.h"
#include "common/transfer/plan.h"
#include "common/transfer/session_protocol.h"
#include "sender/replication_state.h"
#include "sender/source.h"

namespace snapsync {

struct PlannedSync {
  Plan plan;
  std::string method;  // "metadata", "full"
  std::string why;     // one sentence
  Id128 base;          // none for full
  // Every byte of the source's size is in the plan.
  bool covers_all = false;
  // Of the snapshot, for the next sync; none for a thick source.
  std::optional<BaseRecord> record;
  std::vector<std::string> warnings;
};

// The delta from `base`. kBaseMismatch when a guard refuses it.
absl::StatusOr<PlannedSync> PlanDelta(const SourceSnapshot& source,
                                      const BaseState& base);

// Everything that is mapped. `target_is_blank`: what is not mapped reads as
// zeroes there already; else it is part of the plan.
absl::StatusOr<PlannedSync> PlanFull(SourceSnapshot& source,
                                     bool target_is_blank,
                                     const std::string& why);

// The best plan for a target in this state; for a sync under way the same plan
// again. When only a full one is left for a target that holds something, and
// `allow_full` was not said: kTargetUnsuitable for what is not a replica of
// `replication`, kBaseMismatch for what is.
absl::StatusOr<PlannedSync> PlanSync(SourceSnapshot& source,
                                     const ReplicationState& state,
                                     const VolumeState& target,
                                     const std::string& replication,
                                     bool allow_full);

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_PLANNER_H_
