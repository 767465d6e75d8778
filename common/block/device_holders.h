// SPDX-License-Identifier: Apache-2.0
//
// Who uses a block device or a regular file: mounts, swap, devices built on it,
// loop devices, and open descriptors of other processes. Opening with O_EXCL
// alone sees the first of these but no plain open; this sees both.
//
// It is a look at one moment and keeps nobody out. What processes in another
// process-id namespace have open is not seen, nor without root what other users
// have.
//
// Thread-safe.
#ifndef SNAPSYNC_COMMON_BLOCK_DEVICE_HOLDERS_H_
#define SNAPSYNC_COMMON_BLOCK_DEVICE_HOLDERS_H_

#include <string>

#include "absl/status/statusor.h"

namespace snapsync {

// "mounted on /mnt", "held by dm-3 (vg-x)", "open in process 1234 (qemu)", ...
// Empty: nobody. What this process has open does not count. kIo when `path`
// can't be examined.
absl::StatusOr<std::string> DescribeHolders(const std::string& path);

// Whether this process has it open.
absl::StatusOr<bool> IsOpenHere(const std::string& path);

// A path as /proc/self/mountinfo writes it: "\040" and the like undone.
std::string UnescapeMountPath(const std::string& text);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BLOCK_DEVICE_HOLDERS_H_
