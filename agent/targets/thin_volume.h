// SPDX-License-Identifier: Apache-2.0
//
// A thin logical volume as a target: what LVM and device-mapper know of it, and
// the checks that need both. Errors name the volume.
//
// Used by one thread at a time.
#ifndef SNAPSYNC_AGENT_TARGETS_THIN_VOLUME_H_
#define SNAPSYNC_AGENT_TARGETS_THIN_VOLUME_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/targets/pool_space.h"
#include "common/block/extent.h"
#include "common/generations/held_generations.h"
#include "common/lvm/lvm.h"

namespace snapsync {

// At one moment.
struct ThinVolume {
  VolumeGroup group;
  LogicalVolume volume;
  LogicalVolume pool;
};

// kTargetUnsuitable when `path` is no thin volume, or a read-only one.
absl::StatusOr<ThinVolume> FindThinVolume(const std::string& path);

// kBaseMismatch: "GROUP/NAME" and what is wrong with it.
absl::Status Mismatch(const LogicalVolume& volume, const std::string& what);

// Activates `volume` if it is not, and makes sure that the kernel's table is
// that of LVM's metadata (a crash within a merge can leave an old one).
// kTargetUnsuitable when it has an external origin.
absl::Status MakeActive(const LogicalVolume& volume);

// kBusy, with the name of who holds it, when an active volume is open. What
// udev opens for a moment is waited for.
absl::Status CheckNotOpen(const LogicalVolume& volume);

// A snapshot of `volume` that LVM made just now, as the kernel has it: its
// name, its UUID and its thin id; what else it has is its origin's. nullopt
// when it is not active: LVM knows.
absl::StatusOr<std::optional<LogicalVolume>> FindActiveSnapshot(
    const LogicalVolume& volume, const std::string& name);

// The room in the pool of `volume`. Requires: it is active.
absl::StatusOr<PoolSpace> SpaceFor(const LogicalVolume& volume);

// Bytes of `volume` that have blocks. Requires: it is active.
absl::StatusOr<uint64_t> MappedBytes(const LogicalVolume& volume);

// kBaseMismatch, with the number of bytes, when `volume` is not what its
// snapshot `generation` is. Requires: `volume` is active, and nobody writes to
// it. `state_directory` is for the note on the metadata snapshot.
absl::Status CheckSameAsGeneration(const ThinVolume& target,
                                   const LogicalVolume& generation,
                                   const std::string& state_directory);

// What `now` changed since `base`, under all guards: kBaseMismatch otherwise.
// Both are snapshots of the volume's pool.
absl::StatusOr<ExtentList> ChangedBetween(const ThinVolume& target,
                                          const HeldGeneration& base,
                                          const LogicalVolume& now,
                                          const std::string& state_directory);

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_TARGETS_THIN_VOLUME_H_
