// SPDX-License-Identifier: Apache-2.0
//
// Where a regular file holds data, by lseek(2): what lies outside are holes,
// which read as zeroes. For a file that nobody writes to meanwhile.
#ifndef SNAPSYNC_COMMON_BLOCK_FILE_HOLES_H_
#define SNAPSYNC_COMMON_BLOCK_FILE_HOLES_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/units.h"
#include "common/block/extent.h"

namespace snapsync {

// A hole counts where it fills a range of this size and alignment, so that a
// file of many small holes makes no long list.
inline constexpr uint64_t kHoleGrainBytes = 64 * kKiB;

// Within the first `size` bytes. All of them where the file system knows no
// holes, or `path` is no regular file.
absl::StatusOr<ExtentList> FindFileData(const std::string& path, uint64_t size);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BLOCK_FILE_HOLES_H_
