// SPDX-License-Identifier: Apache-2.0
#include "agent/targets/named_values.h"

#include <sstream>

#include "absl/strings/numbers.h"
#include "common/base/error.h"

namespace snapsync {

absl::StatusOr<NamedValues> NamedValues::Parse(const std::string& kind,
                                               std::string_view text) {
  std::istringstream words{std::string(text)};
  std::string word;
  words >> word;
  if (word != kind) {
    return Error(Reason::kBaseMismatch,
                 "the target's record has \"" + word + "\" where \"" + kind +
                     "\" is expected; it was made for another kind of target");
  }
  NamedValues values(kind);
  while (words >> word) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos || equals == 0) {
      return Error(Reason::kBaseMismatch,
                   "the target's record has \"" + word + "\" in its " + kind);
    }
    values.values_[word.substr(0, equals)] = word.substr(equals + 1);
  }
  return values;
}

NamedValues& NamedValues::Set(const std::string& name,
                              const std::string& value) {
  values_[name] = value;
  return *this;
}

NamedValues& NamedValues::Set(const std::string& name, uint64_t value) {
  return Set(name, std::to_string(value));
}

std::string NamedValues::Text(const std::string& name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? std::string() : found->second;
}

uint64_t NamedValues::Number(const std::string& name) const {
  uint64_t number = 0;
  return absl::SimpleAtoi(Text(name), &number) ? number : 0;
}

std::string NamedValues::ToString() const {
  std::string text = kind_;
  for (const auto& [name, value] : values_) text += " " + name + "=" + value;
  return text;
}

}  // namespace snapsync
