// SPDX-License-Identifier: Apache-2.0
//
// The conditions under which a delta out of thin metadata is the truth about
// the contents of the devices. docs/delta.md has each with its counter-example.
// Pure functions over facts that others looked up; thread-safe.
//
// A refusal is kBaseMismatch. Its text begins with the guard ("G5: "), says
// what was found and what was expected, and what to do.
#ifndef SNAPSYNC_COMMON_THIN_GUARDS_H_
#define SNAPSYNC_COMMON_THIN_GUARDS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "common/thin/base_record.h"
#include "common/thin/mappings.h"
#include "common/thin/pool_status.h"
#include "common/thin/superblock.h"
#include "common/thin/tree_merge.h"

namespace snapsync {

enum class Guard {
  kPoolHealthy = 1,     // G1
  kSamePool = 2,        // G2
  kSameTimeline = 3,    // G3
  kSameVolume = 4,      // G4
  kSameDevice = 5,      // G5
  kBaseFrozen = 6,      // G6, and its cheap form
  kSnapshotFrozen = 7,  // G7
  kKnownContents = 8,   // G8
  kProvenTimeline = 9,  // G9
};

absl::Status GuardRefusal(Guard guard, std::string_view message);
// The guard that made `status`; nullopt for any other status.
std::optional<Guard> GuardOf(const absl::Status& status);

// What was looked up outside the metadata.
struct PoolFacts {
  // By LVM; empty for plain device-mapper pools and files.
  std::string vg_uuid;
  std::string pool_uuid;
  // The logical volume that has the base's device id now; empty: none.
  std::string base_lv_uuid;
  // Of the snapshot.
  std::string snapshot_lv_uuid;
  bool snapshot_external_origin = false;
};

// G1 and the overflow of G3: of the pool alone, for every kind of send.
// `status` of a live pool; nullopt for metadata at rest or in a file.
absl::Status CheckPool(const Superblock& superblock,
                       const std::optional<PoolStatus>& status);

// G8 of the snapshot.
absl::Status CheckSnapshot(const PoolFacts& facts);

// G2 to G5 and G8 of the base: `record` against the pool and `device`, which is
// what the metadata knows under the record's device id now.
absl::Status CheckBase(const BaseRecord& record, const Superblock& superblock,
                       const PoolFacts& facts,
                       const std::optional<ThinDevice>& device);

// What is there now in the place of a witness.
struct WitnessFacts {
  WitnessRecord record;
  std::string lv_uuid;  // that has its thin id in the pool; empty: none
  std::optional<ThinDevice> device;
};

// For a base of which only the mappings are known: G2, G3, the group and the
// pool of G4, G7's order of times, G8 and G9.
absl::Status CheckSavedBase(const BaseRecord& record,
                            const Superblock& superblock,
                            const PoolFacts& facts,
                            const std::vector<WitnessFacts>& witnesses,
                            const ThinDevice& snapshot);

// Whether the base's whole tree must be walked for CheckBaseFrozen(): it was
// snapshotted itself, so its own later writes may lie in shared nodes.
bool BaseNeedsWholeWalk(const ThinDevice& base);

// G6: nothing in the base was mapped since it was made.
absl::Status CheckBaseFrozen(const ThinDevice& base, const TreeWalk& walk);

// G7: the same of the snapshot.
absl::Status CheckSnapshotFrozen(const ThinDevice& snapshot,
                                 const TreeWalk& walk);

// What an operator should hear although nothing is refused.
std::vector<std::string> PoolWarnings(const Superblock& superblock);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_THIN_GUARDS_H_
