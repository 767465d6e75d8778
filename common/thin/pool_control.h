// SPDX-License-Identifier: Apache-2.0
//
// Live thin pools and thin devices through device-mapper. The only place that
// knows libdevmapper.
//
// Thread-safe: libdevmapper is not, so requests wait for each other. Needs the
// rights to use device-mapper: kPermission without them.
#ifndef SNAPSYNC_COMMON_THIN_POOL_CONTROL_H_
#define SNAPSYNC_COMMON_THIN_POOL_CONTROL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/thin/pool_status.h"

namespace snapsync {

struct DeviceNumber {
  uint32_t major = 0;
  uint32_t minor = 0;

  // A device node that has this number.
  std::string Path() const;
  friend bool operator==(const DeviceNumber&, const DeviceNumber&) = default;
};

// An active device-mapper device.
struct MappedDevice {
  DeviceNumber number;
  std::string name;
  std::string uuid;  // empty: it has none
  bool read_only = false;
  bool suspended = false;
};

struct ThinTarget {
  MappedDevice device;
  DeviceNumber pool;
  uint32_t thin_id = 0;
  std::optional<std::string> external_origin;  // device of the origin
  uint64_t size = 0;                           // bytes
};

struct PoolTarget {
  MappedDevice device;  // of LVM's pools: VG-POOL-tpool
  DeviceNumber metadata;
  DeviceNumber data;
  uint32_t data_block_sectors = 0;
};

// UUIDs of LVM, without the dashes that LVM prints.
struct LvmUuids {
  std::string vg;
  std::string lv;
};

// The number of the block device at `path`; nullopt for anything else that
// exists. kIo when it does not.
absl::StatusOr<std::optional<DeviceNumber>> BlockDeviceNumber(
    const std::string& path);

// nullopt when the device has not (only) a target of that kind.
absl::StatusOr<std::optional<ThinTarget>> FindThin(DeviceNumber number);
absl::StatusOr<std::optional<PoolTarget>> FindPool(DeviceNumber number);
// The active pool whose metadata lies on `metadata`. nullopt also where there
// is no device-mapper at all.
absl::StatusOr<std::optional<PoolTarget>> FindPoolOfMetadata(
    DeviceNumber metadata);

// How often a device of device-mapper is open: by processes, mounts, devices on
// it, and the kernel. nullopt when it is none.
absl::StatusOr<std::optional<int>> ReadOpenCount(DeviceNumber number);

// Bytes of a thin device that have blocks of the pool. kIo when it is none.
absl::StatusOr<uint64_t> ReadMappedBytes(DeviceNumber number);

absl::StatusOr<PoolStatus> ReadPoolStatus(const PoolTarget& pool);

// Messages to the pool; durable when they return OK. kBusy: a metadata snapshot
// exists already. kTargetUnsuitable: the pool is read-only, or became so in
// this; it then may have been done or not.
absl::Status ReserveMetadataSnapshot(const PoolTarget& pool);
absl::Status ReleaseMetadataSnapshot(const PoolTarget& pool);

// The UUIDs in a device-mapper UUID made by LVM ("LVM-" and twice 32
// characters, then perhaps a suffix as "-tpool").
std::optional<LvmUuids> ParseLvmUuid(std::string_view device_mapper_uuid);

// "fHy1yu-0nQE-…": 32 characters as LVM prints them; others as they are.
std::string FormatLvmUuid(std::string_view uuid);

// "vg--a-lv" for ("vg-a", "lv"): the device-mapper name of a logical volume.
std::string MapperName(std::string_view vg, std::string_view lv);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_THIN_POOL_CONTROL_H_
