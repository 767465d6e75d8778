// SPDX-License-Identifier: Apache-2.0
#include "common/base/units.h"

#include <array>
#include <charconv>
#include <cmath>

#include "absl/strings/str_format.h"
#include "common/base/error.h"

namespace snapsync {

absl::StatusOr<uint64_t> ParseSize(std::string_view text) {
  uint64_t number = 0;
  const auto [rest, error] =
      std::from_chars(text.data(), text.data() + text.size(), number);
  std::string_view suffix(
      rest, static_cast<size_t>(text.data() + text.size() - rest));
  uint64_t factor = 0;
  if (suffix.empty() || suffix == "B" || suffix == "b") {
    factor = 1;
  } else if (suffix == "K" || suffix == "k") {
    factor = kKiB;
  } else if (suffix == "M" || suffix == "m") {
    factor = kMiB;
  } else if (suffix == "G" || suffix == "g") {
    factor = kGiB;
  } else if (suffix == "T" || suffix == "t") {
    factor = kGiB * 1024;
  }
  uint64_t bytes = 0;
  if (error != std::errc() || factor == 0 ||
      __builtin_mul_overflow(number, factor, &bytes)) {
    return Error(Reason::kUsage,
                 "\"" + std::string(text) +
                     "\" is not a size; write bytes, or a number with K, M, "
                     "G or T, such as 10M");
  }
  return bytes;
}

std::string FormatBytes(uint64_t bytes) {
  static constexpr std::array<const char*, 5> kUnits = {"KiB", "MiB", "GiB",
                                                        "TiB", "PiB"};
  if (bytes < kKiB) return absl::StrFormat("%d B", bytes);
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  // What would be printed as 1024.0 belongs to the next unit.
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

std::string FormatSeconds(double seconds) {
  if (seconds < 59.95) return absl::StrFormat("%.1f s", seconds);
  const auto whole = static_cast<uint64_t>(std::lround(seconds));
  if (whole < 3600) {
    return absl::StrFormat("%d min %d s", whole / 60, whole % 60);
  }
  return absl::StrFormat("%d h %d min", whole / 3600, whole % 3600 / 60);
}

}  // namespace snapsync
