// SPDX-License-Identifier: Apache-2.0
//
// A random 128-bit name: of a generation (a committed state of a replica) or of
// a session. Random, so that two histories that forked can never give the same
// name to different contents. All zero means "none".
#ifndef SNAPSYNC_COMMON_BASE_ID128_H_
#define SNAPSYNC_COMMON_BASE_ID128_H_

#include <array>
#include <compare>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace snapsync {

struct Id128 {
  std::array<std::byte, 16> bytes{};

  // From the kernel's random number generator. Thread-safe.
  static Id128 Random();
  // 32 lower-case hexadecimal digits.
  static std::optional<Id128> Parse(std::string_view text);
  std::string ToString() const;
  // The first eight of its digits, or "none": for people, and in names.
  std::string Short() const;

  bool none() const { return *this == Id128{}; }
  friend auto operator<=>(const Id128&, const Id128&) = default;
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BASE_ID128_H_
