// SPDX-License-Identifier: Apache-2.0
//
// The delta to a snapshot from a base that is gone, out of the base's mappings
// as they were saved: a virtual block is the same if and only if it has the
// same data block of the same time in both, and that time is before the base's
// making (docs/delta.md has the rule's reason). Under the same guards as a
// delta from a base that is there, with G9 for those that look at the base.
#ifndef SNAPSYNC_COMMON_THIN_SAVED_DELTA_H_
#define SNAPSYNC_COMMON_THIN_SAVED_DELTA_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/thin/guarded_delta.h"
#include "common/thin/saved_mappings.h"

namespace snapsync {

// A witness, and the UUID of the volume that has its thin id now.
struct WitnessLookup {
  WitnessRecord record;
  std::string lv_uuid;
};

// From `base` (with its size and time), whose mappings `saved` gives, to
// `snapshot`, whose tree is walked whole. kIo for damaged metadata,
// kBaseMismatch for saved mappings that can't be used.
absl::StatusOr<TreeDelta> CompareWithSaved(PoolView& view,
                                           const BaseRecord& base,
                                           MappingsReader& saved,
                                           const ThinDevice& snapshot,
                                           uint64_t snapshot_size);

// ComputeDelta() for `request.base`, whose device is not looked at: its
// mappings come from the file at `path`, which must be named `name`.
absl::StatusOr<GuardedDelta> ComputeSavedDelta(
    PoolView& view, const DeltaRequest& request, const std::string& path,
    const SavedMappingsName& name, const std::vector<WitnessLookup>& witnesses);

// Writes the mappings of `record`'s snapshot to `writer`, and finishes it.
// kBaseMismatch when it is not what the record says any more: somebody wrote to
// it or trimmed it since.
absl::Status SaveMappings(PoolView& view, const BaseRecord& record,
                          MappingsWriter& writer);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_THIN_SAVED_DELTA_H_
