// SPDX-License-Identifier: Apache-2.0
//
// The disks below a volume group, found in sysfs and not by a further LVM
// command: below the mapped devices of the group's active volumes.
//
// Thread-safe.
#ifndef SNAPSYNC_COMMON_LVM_PHYSICAL_VOLUMES_H_
#define SNAPSYNC_COMMON_LVM_PHYSICAL_VOLUMES_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace snapsync {

// Kernel names ("sda3", "dm-7"), sorted. `sysfs` is "/sys" but in tests.
absl::StatusOr<std::vector<std::string>> FindPhysicalVolumes(
    const std::string& group_uuid, const std::string& sysfs = "/sys");

// Makes durable what was written to them so far, LVM's metadata first of all:
// empties their volatile caches. kIo with the device.
absl::Status FlushPhysicalVolumes(const std::string& group_uuid);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_LVM_PHYSICAL_VOLUMES_H_
