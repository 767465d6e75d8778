// SPDX-License-Identifier: Apache-2.0
//
// The status line of a thin-pool target, as `dmsetup status` prints it after
// the target's name. Thread-safe: pure functions.
#ifndef SNAPSYNC_COMMON_THIN_POOL_STATUS_H_
#define SNAPSYNC_COMMON_THIN_POOL_STATUS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace snapsync {

struct PoolStatus {
  bool failed = false;  // the line is "Fail" or "Error": nothing else is known
  uint64_t transaction_id = 0;
  uint64_t used_metadata_blocks = 0;
  uint64_t total_metadata_blocks = 0;
  uint64_t used_data_blocks = 0;
  uint64_t total_data_blocks = 0;
  std::optional<uint64_t> held_root;  // metadata block
  std::string mode;                   // "rw", "ro", "out_of_data_space"
  bool needs_check = false;

  // Why the kernel writes no metadata of the pool ("needs_check"); nullopt: it
  // does.
  std::optional<std::string> WhyReadOnly() const;
};

// kIo for a line that has not the words a thin-pool target gives.
absl::StatusOr<PoolStatus> ParsePoolStatus(std::string_view line);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_THIN_POOL_STATUS_H_
