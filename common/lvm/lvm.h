// SPDX-License-Identifier: Apache-2.0
//
// Logical volumes: facts as LVM's own commands report them (`lvs` in JSON), and
// the few changes that SnapSync makes. Knows nothing of targets or syncs.
//
// Sizes in bytes. UUIDs as LVM prints them, with dashes. An LVM command takes
// 0.1 to 0.5 s, so facts are read for a whole volume group at once, and a
// change is one command. After each change the physical volumes are flushed:
// LVM commits its metadata in two writes with no flush between or after them.
//
// Thread-safe: no state of its own. LVM's commands lock the volume group
// against each other.
//
// Errors name the volume and have LVM's own last lines: kTargetUnsuitable for a
// volume that does not exist, kBusy for one in use, kNoSpace
// for a pool that LVM makes nothing new in, kPermission, kConfiguration
// without lvm2, kIo for anything else that LVM could not do.
#ifndef SNAPSYNC_COMMON_LVM_LVM_H_
#define SNAPSYNC_COMMON_LVM_LVM_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace snapsync {

struct LogicalVolume {
  std::string group;  // name of the volume group
  std::string group_uuid;
  std::string name;
  std::string uuid;
  bool hidden = false;       // internal: part of a pool, or being merged
  std::string device_path;   // "/dev/mapper/..."; there while it is active
  std::string segment_type;  // "thin", "thin-pool", "linear", ...
  uint64_t size = 0;
  bool active = false;
  bool writable = false;  // as LVM would activate it
  bool skips_activation = false;
  bool merging = false;  // is to be merged into its origin when that is free
  std::vector<std::string> tags;

  // Thin volumes.
  std::optional<uint32_t> thin_id;
  std::string pool;
  std::string pool_uuid;
  std::string origin;  // name; empty when it is gone
  // Of a thin volume: the pool's when it was made. Of a pool: the current one.
  uint64_t transaction_id = 0;
  // Pools.
  uint64_t chunk_size = 0;

  std::string FullName() const { return group + "/" + name; }
  // "LVM-" and the two UUIDs without dashes: never the same for two volumes.
  std::string DeviceMapperUuid() const;
  bool HasTag(std::string_view tag) const;
};

// All logical volumes of one volume group, at one moment.
struct VolumeGroup {
  std::string name;
  std::vector<LogicalVolume> volumes;

  // nullptr when there is none. Hidden ones included.
  const LogicalVolume* FindName(std::string_view name) const;
  const LogicalVolume* FindUuid(std::string_view uuid) const;
  const LogicalVolume* FindThinId(std::string_view pool_uuid,
                                  uint32_t thin_id) const;
};

struct LogicalVolumeName {
  std::string group;
  std::string name;

  friend bool operator==(const LogicalVolumeName&,
                         const LogicalVolumeName&) = default;
};

// The volume that a path speaks of: "/dev/GROUP/NAME", "/dev/mapper/...",
// "GROUP/NAME", or any path of a device node of an active one.
// kTargetUnsuitable when it can't be one.
absl::StatusOr<LogicalVolumeName> ParseVolumePath(const std::string& path);

// [a-zA-Z0-9+_.-], at most 127, no leading '-', not "." or "..", and none of
// the names that LVM keeps for itself.
bool IsValidVolumeName(std::string_view name);

absl::StatusOr<VolumeGroup> ReadVolumeGroup(const std::string& group);

// The output of the `lvs` command that ReadVolumeGroup() runs. kIo when it is
// not exactly what is expected.
absl::StatusOr<VolumeGroup> ParseVolumeReport(const std::string& group,
                                              std::string_view json);

struct SnapshotOptions {
  bool read_only = false;
  bool activation_skip = false;  // nor is it activated now, unless `active`
  bool active = false;
  std::vector<std::string> tags;
};

// A thin snapshot of `origin`, a thin volume of `group`, in its pool. The
// kernel suspends an active origin for it, so its file system is consistent.
//
// A crash between the pool's commit and LVM's leaves a thin device that no
// volume names, and LVM would make the next one with the same id and fail. Such
// a device is deleted if its id is higher than that of any volume in the pool.
absl::Status CreateThinSnapshot(const VolumeGroup& group,
                                const LogicalVolume& origin,
                                const std::string& name,
                                const SnapshotOptions& options);

// An empty thin volume of the smallest size in `pool`, not active, read-only.
// The same crash is mended as for a snapshot.
absl::Status CreateEmptyThinVolume(const VolumeGroup& group,
                                   const LogicalVolume& pool,
                                   const std::string& name,
                                   const std::vector<std::string>& tags);

// Of one volume group. Also those that skip activation.
absl::Status ActivateVolumes(const std::vector<LogicalVolume>& volumes);
// kBusy when one is in use (LVM tries for five seconds); others may be
// inactive then.
absl::Status DeactivateVolumes(const std::vector<LogicalVolume>& volumes);

// Removes volumes of `group`. One that is gone meanwhile or was given another
// name is none, and another volume that has its name by now stays. kBusy when
// one is in use; others may be gone then.
//
// A crash between LVM's commit and the pool's leaves a volume whose thin device
// LVM still wants to make, but which the pool has already; LVM then refuses all
// changes in that pool. Such a thin device is deleted first, if it is that of a
// volume that is to be removed, and no other has its thin id.
absl::Status RemoveVolumes(const VolumeGroup& group,
                           const std::vector<LogicalVolume>& volumes);

absl::Status AddTag(const LogicalVolume& volume, const std::string& tag);

absl::Status RenameVolume(const LogicalVolume& volume,
                          const std::string& new_name);

// Merges a thin snapshot into its origin: one commit after which the origin
// has the snapshot's thin id (and contents), and the snapshot is gone. When
// either is in use LVM puts it off until the origin is next activated, and this
// is still OK: read the volume group again to see.
absl::Status MergeSnapshot(const LogicalVolume& snapshot);

// Has a merge that was put off done, if nobody uses the origin any more.
absl::Status RefreshVolume(const LogicalVolume& volume);

// LVM's metadata of a group as it is now, in a file for vgcfgrestore(8), which
// replaces `path` at once and durably. LVM keeps such copies in
// /etc/lvm/backup, too, unless it is told not to.
absl::Status SaveGroupMetadata(const std::string& group,
                               const std::string& path);

// The thin id in LVM's complaint that the pool has such a device already.
std::optional<uint32_t> OrphanThinIdIn(std::string_view message);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_LVM_LVM_H_
