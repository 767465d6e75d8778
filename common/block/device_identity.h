// SPDX-License-Identifier: Apache-2.0
//
// Which block device a path leads to, in a form that stays the same across
// restarts and is never the same for two devices of one host:
//
//   dm:LVM-...            the device-mapper UUID (of LVs: both LVM UUIDs)
//   wwid:naa.5000...      the disk's own world-wide name, or
//   serial:QM00001        its serial number; "-part2" for a partition
//   loop:/path/of/file    the file behind a loop device
//   name:sdb              the kernel's name, where nothing better is known;
//                         "name:sdb1+PARTUUID" for a partition
//
// Thread-safe.
#ifndef SNAPSYNC_COMMON_BLOCK_DEVICE_IDENTITY_H_
#define SNAPSYNC_COMMON_BLOCK_DEVICE_IDENTITY_H_

#include <string>

#include "absl/status/statusor.h"

namespace snapsync {

// kTargetUnsuitable when `path` is no block device, kIo when it can't be
// examined.
absl::StatusOr<std::string> IdentifyDevice(const std::string& path);

// Where the bytes of the device or file at `path` are, on which running host:
// "BOOT-ID block 253:4", "BOOT-ID file 2049:77". What has the same place is the
// same, whatever the path, from whichever container it is looked at. Holds only
// until that is removed. Empty: nothing is there, or it can't be told.
std::string PlaceOf(const std::string& path);

// What libblkid recognises on the device or in the file: "ext4",
// "LVM2_member", "gpt", ... Empty: nothing.
absl::StatusOr<std::string> FindSignature(const std::string& path);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BLOCK_DEVICE_IDENTITY_H_
