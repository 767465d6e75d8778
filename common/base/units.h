// SPDX-License-Identifier: Apache-2.0
//
// Sizes and times as people write and read them.
#ifndef SNAPSYNC_COMMON_BASE_UNITS_H_
#define SNAPSYNC_COMMON_BASE_UNITS_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace snapsync {

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kGiB = 1024 * kMiB;
// A sector of Linux and of QCOW2, whatever the device's own are.
inline constexpr uint64_t kSectorBytes = 512;

// "4096", "10M", "1G", "64k", "5B": bytes, suffixes are powers of 1024.
// kUsage for anything else and for what does not fit 64 bits.
absl::StatusOr<uint64_t> ParseSize(std::string_view text);

// "512 B", "64.0 KiB", "1.5 GiB".
std::string FormatBytes(uint64_t bytes);

// "0.4 s", "3 min 20 s", "2 h 5 min".
std::string FormatSeconds(double seconds);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BASE_UNITS_H_
