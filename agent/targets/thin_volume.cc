// SPDX-License-Identifier: Apache-2.0
#include "agent/targets/thin_volume.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <optional>
#include <thread>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"
#include "common/base/units.h"
#include "common/block/device_holders.h"
#include "common/thin/delta.h"
#include "common/thin/metadata_snapshot.h"
#include "common/thin/pool_control.h"

namespace snapsync {
namespace {

// udev opens each new or changed device for a moment, to look at it.
constexpr int kOpenAttempts = 20;
constexpr std::chrono::milliseconds kOpenPause{100};

absl::StatusOr<DeviceNumber> NumberOf(const LogicalVolume& volume) {
  SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<DeviceNumber> number,
                            BlockDeviceNumber(volume.device_path));
  if (!number.has_value()) {
    return Error(Reason::kIo, volume.device_path + " is no block device");
  }
  return *number;
}

absl::StatusOr<ThinTarget> TableOf(const LogicalVolume& volume) {
  SNAPSYNC_ASSIGN_OR_RETURN(const DeviceNumber number, NumberOf(volume));
  SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<ThinTarget> table,
                            FindThin(number));
  if (!table.has_value() || table->device.uuid != volume.DeviceMapperUuid()) {
    return Error(Reason::kIo, volume.FullName() + ": the device at " +
                                  volume.device_path +
                                  " is not that thin volume");
  }
  return *table;
}

MetadataSource MetadataOf(const LogicalVolume& volume,
                          const std::string& state_directory) {
  MetadataSource source;
  source.path =
      "/dev/mapper/" + MapperName(volume.group, volume.pool + "_tmeta");
  source.state_directory = state_directory;
  return source;
}

}  // namespace

absl::Status Mismatch(const LogicalVolume& volume, const std::string& what) {
  return Error(Reason::kBaseMismatch, volume.FullName() + " " + what);
}

absl::StatusOr<ThinVolume> FindThinVolume(const std::string& path) {
  SNAPSYNC_ASSIGN_OR_RETURN(const LogicalVolumeName name,
                            ParseVolumePath(path));
  ThinVolume target;
  SNAPSYNC_ASSIGN_OR_RETURN(target.group, ReadVolumeGroup(name.group));
  const LogicalVolume* volume = target.group.FindName(name.name);
  if (volume == nullptr || volume->hidden) {
    return Error(Reason::kTargetUnsuitable,
                 path + ": volume group " + name.group +
                     " has no logical volume " + name.name +
                     "; make it first (lvcreate -V SIZE -T " + name.group +
                     "/POOL -n " + name.name + ")");
  }
  if (!volume->thin_id.has_value()) {
    return Error(Reason::kTargetUnsuitable,
                 path + ": a volume of kind \"" + volume->segment_type +
                     "\", not a thin one; as a target it is of kind "
                     "\"block\"");
  }
  if (!volume->writable) {
    return Error(Reason::kTargetUnsuitable,
                 path + ": is read-only (lvchange -prw makes it writable)");
  }
  const LogicalVolume* pool = target.group.FindUuid(volume->pool_uuid);
  if (pool == nullptr || pool->chunk_size == 0) {
    return Error(Reason::kIo,
                 path + ": LVM does not show its pool " + volume->pool);
  }
  target.volume = *volume;
  target.pool = *pool;
  return target;
}

absl::Status MakeActive(const LogicalVolume& volume) {
  if (!volume.active) {
    SNAPSYNC_RETURN_IF_ERROR(ActivateVolumes({volume}));
  }
  SNAPSYNC_ASSIGN_OR_RETURN(ThinTarget table, TableOf(volume));
  if (table.thin_id != volume.thin_id) {
    SNAPSYNC_RETURN_IF_ERROR(RefreshVolume(volume));
    SNAPSYNC_ASSIGN_OR_RETURN(table, TableOf(volume));
  }
  if (table.thin_id != volume.thin_id) {
    return Error(Reason::kIo, volume.FullName() +
                                  ": the kernel has it as thin device " +
                                  std::to_string(table.thin_id) + ", LVM as " +
                                  std::to_string(volume.thin_id.value_or(0)) +
                                  "; deactivate and activate it (lvchange)");
  }
  if (table.external_origin.has_value()) {
    return Error(Reason::kTargetUnsuitable,
                 volume.FullName() +
                     ": has an external origin; what is not written in it "
                     "does not read as zeroes");
  }
  return absl::OkStatus();
}

absl::Status CheckNotOpen(const LogicalVolume& volume) {
  if (!volume.active) return absl::OkStatus();
  SNAPSYNC_ASSIGN_OR_RETURN(const DeviceNumber number, NumberOf(volume));
  for (int attempt = 0;; ++attempt) {
    SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<int> count,
                              ReadOpenCount(number));
    if (count.value_or(0) == 0) return absl::OkStatus();
    SNAPSYNC_ASSIGN_OR_RETURN(std::string holder,
                              DescribeHolders(volume.device_path));
    // A mount or a holder does not go away by itself.
    if (!holder.starts_with("mounted") && !holder.starts_with("held") &&
        attempt < kOpenAttempts) {
      std::this_thread::sleep_for(kOpenPause);
      continue;
    }
    if (holder.empty()) {
      holder = "open " + std::to_string(*count) +
               " time(s), by the kernel or where this process can't see";
    }
    return Error(Reason::kBusy, volume.device_path + " is " + holder +
                                    "; try again when it is free");
  }
}

absl::StatusOr<std::optional<LogicalVolume>> FindActiveSnapshot(
    const LogicalVolume& volume, const std::string& name) {
  LogicalVolume snapshot = volume;
  snapshot.name = name;
  snapshot.device_path = "/dev/mapper/" + MapperName(volume.group, name);
  snapshot.origin = volume.name;
  const absl::StatusOr<DeviceNumber> number = NumberOf(snapshot);
  if (!number.ok()) return std::nullopt;
  SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<ThinTarget> thin,
                            FindThin(*number));
  if (!thin.has_value()) return std::nullopt;
  const std::optional<LvmUuids> uuids = ParseLvmUuid(thin->device.uuid);
  if (!uuids.has_value()) return std::nullopt;
  snapshot.uuid = FormatLvmUuid(uuids->lv);
  snapshot.thin_id = thin->thin_id;
  snapshot.active = true;
  return snapshot.DeviceMapperUuid() == thin->device.uuid
             ? std::optional(snapshot)
             : std::nullopt;
}

absl::StatusOr<PoolSpace> SpaceFor(const LogicalVolume& volume) {
  SNAPSYNC_ASSIGN_OR_RETURN(const ThinTarget table, TableOf(volume));
  SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<PoolTarget> pool,
                            FindPool(table.pool));
  if (!pool.has_value()) {
    return Error(Reason::kIo, volume.FullName() + ": its pool is not active");
  }
  return PoolSpace([pool = *pool] { return ReadPoolStatus(pool); },
                   pool->data_block_sectors * kSectorBytes,
                   volume.group + "/" + volume.pool, pool->device.uuid);
}

absl::StatusOr<uint64_t> MappedBytes(const LogicalVolume& volume) {
  SNAPSYNC_ASSIGN_OR_RETURN(const DeviceNumber number, NumberOf(volume));
  return ReadMappedBytes(number);
}

absl::Status CheckSameAsGeneration(const ThinVolume& target,
                                   const LogicalVolume& generation,
                                   const std::string& state_directory) {
  const LogicalVolume& volume = target.volume;
  // A flush has the pool commit what it has in memory only: read in any way,
  // the metadata then has all that was written before.
  const UniqueFd fd(
      ::open(volume.device_path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid() || ::fsync(fd.get()) != 0) {
    return PosixError(errno, volume.device_path + ": flush failed");
  }
  uint64_t different = 0;
  SNAPSYNC_RETURN_IF_ERROR(WithPoolView(
      MetadataOf(volume, state_directory), [&](PoolView& view) -> absl::Status {
        different = 0;
        SNAPSYNC_ASSIGN_OR_RETURN(const ThinDevice now,
                                  view.RequireDevice(*volume.thin_id));
        SNAPSYNC_ASSIGN_OR_RETURN(const ThinDevice then,
                                  view.RequireDevice(*generation.thin_id));
        // Without sizes: mappings beyond the end of a volume that was shrunk
        // are compared as well, and room by which it grew is not a change.
        SNAPSYNC_ASSIGN_OR_RETURN(const TreeDelta tree,
                                  CompareDevices(view, then, now, {}));
        different = tree.delta.changed.bytes() + tree.delta.gone.bytes();
        return absl::OkStatus();
      }));
  if (different != 0) {
    return Mismatch(
        volume, "was written to since generation " + generation.name + ": " +
                    FormatBytes(different) + " of blocks differ from it");
  }
  return absl::OkStatus();
}

absl::StatusOr<ExtentList> ChangedBetween(const ThinVolume& target,
                                          const HeldGeneration& base,
                                          const LogicalVolume& now,
                                          const std::string& state_directory) {
  const DeltaRequest request =
      RequestDelta(target.group, now, RecordOf(base, target.pool.chunk_size));
  ExtentList changed;
  SNAPSYNC_RETURN_IF_ERROR(
      WithPoolView(MetadataOf(target.volume, state_directory),
                   [&](PoolView& view) -> absl::Status {
                     SNAPSYNC_ASSIGN_OR_RETURN(const GuardedDelta found,
                                               ComputeDelta(view, request));
                     changed = Union(found.delta.changed, found.delta.gone);
                     return absl::OkStatus();
                   }));
  return changed;
}

}  // namespace snapsync
