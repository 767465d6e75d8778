// SPDX-License-Identifier: Apache-2.0
//
// Fields of the JSON in our state files (common/base/state_file.h), which a
// damaged disk may have changed to anything. They throw
// nlohmann::json::exception, as the library's own accessors do, where a field
// is not what is wanted. (The library's would make an integer of 2e44, and 32
// bits of 33.)
#ifndef SNAPSYNC_COMMON_BASE_STATE_JSON_H_
#define SNAPSYNC_COMMON_BASE_STATE_JSON_H_

#include <concepts>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "common/base/id128.h"

namespace snapsync {

template <std::integral T>
void ReadNumber(const nlohmann::json& value, T& number) {
  if (value.is_number_unsigned()) {
    const auto read = value.get<uint64_t>();
    number = static_cast<T>(read);
    if (std::in_range<T>(read)) return;
  } else if (value.is_number_integer()) {
    const auto read = value.get<int64_t>();
    number = static_cast<T>(read);
    if (std::in_range<T>(read)) return;
  }
  throw nlohmann::json::other_error::create(500, "not a number in range",
                                            &value);
}

inline Id128 IdOf(const nlohmann::json& value) {
  const auto id = Id128::Parse(value.get<std::string>());
  if (!id) {
    throw nlohmann::json::other_error::create(500, "not an id", &value);
  }
  return *id;
}

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BASE_STATE_JSON_H_
