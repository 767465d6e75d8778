// SPDX-License-Identifier: Apache-2.0
//
// The delta that a sync may trust: computed and put under all guards that the
// metadata, the record of the base and the facts of the host allow to check.
//
//   GuardedDelta result;
//   SNAPSYNC_RETURN_IF_ERROR(WithPoolView(source, [&](PoolView& view) {
//     SNAPSYNC_ASSIGN_OR_RETURN(result, ComputeDelta(view, request));
//     return absl::OkStatus();
//   }));
#ifndef SNAPSYNC_COMMON_THIN_GUARDED_DELTA_H_
#define SNAPSYNC_COMMON_THIN_GUARDED_DELTA_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/thin/base_record.h"
#include "common/thin/delta.h"
#include "common/thin/guards.h"
#include "common/thin/mappings.h"

namespace snapsync {

struct DeltaRequest {
  uint32_t snapshot_id = 0;
  uint64_t snapshot_size = 0;      // bytes
  std::optional<BaseRecord> base;  // nullopt: all that is mapped
  PoolFacts facts;
};

struct GuardedDelta {
  Delta delta;
  BaseRecord record;  // of the snapshot: the base record of the next sync
  std::vector<std::string> warnings;
};

// kBaseMismatch with the guard's name when the delta can't be trusted, kUsage
// when the pool has no such snapshot, kIo for damaged metadata.
absl::StatusOr<GuardedDelta> ComputeDelta(PoolView& view,
                                          const DeltaRequest& request);

// What is remembered of `snapshot`, which `request` speaks of.
BaseRecord RecordOf(const PoolView& view, const ThinDevice& snapshot,
                    const DeltaRequest& request);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_THIN_GUARDED_DELTA_H_
