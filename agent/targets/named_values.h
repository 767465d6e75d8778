// SPDX-License-Identifier: Apache-2.0
//
// The text form of tokens and seals: a kind and named values, as in
//
//   thin-stage volume=nEnZvq-... id=5
//
// Names and values are printable ASCII without white space; names have no '='.
// Thread-safe: pure functions.
#ifndef SNAPSYNC_AGENT_TARGETS_NAMED_VALUES_H_
#define SNAPSYNC_AGENT_TARGETS_NAMED_VALUES_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"

namespace snapsync {

class NamedValues {
 public:
  explicit NamedValues(std::string kind) : kind_(std::move(kind)) {}

  // kBaseMismatch when `text` is not of this kind and form: what it was made
  // for is not known, so nothing is proven.
  static absl::StatusOr<NamedValues> Parse(const std::string& kind,
                                           std::string_view text);

  NamedValues& Set(const std::string& name, const std::string& value);
  NamedValues& Set(const std::string& name, uint64_t value);

  // Empty, or 0, when there is none of that name.
  std::string Text(const std::string& name) const;
  uint64_t Number(const std::string& name) const;

  std::string ToString() const;

 private:
  std::string kind_;
  std::map<std::string, std::string> values_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_TARGETS_NAMED_VALUES_H_
