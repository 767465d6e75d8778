// SPDX-License-Identifier: Apache-2.0
//
// Matchers for absl::Status and absl::StatusOr.
//
//   EXPECT_THAT(writer->Flush(), IsOk());
//   EXPECT_THAT(ParseSize("x"), FailsWith(Reason::kUsage, "not a size"));
#ifndef SNAPSYNC_TESTS_TESTING_STATUS_MATCHERS_H_
#define SNAPSYNC_TESTS_TESTING_STATUS_MATCHERS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/error.h"
#include "gmock/gmock.h"

namespace snapsync {

inline const absl::Status& StatusOf(const absl::Status& status) {
  return status;
}
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& status) {
  return status.status();
}

MATCHER(IsOk, "is OK") {
  if (StatusOf(arg).ok()) return true;
  *result_listener << StatusOf(arg).ToString();
  return false;
}

MATCHER_P2(FailsWith, reason, text,
           "fails with reason " + std::to_string(static_cast<int>(reason)) +
               " and \"" + std::string(text) + "\"") {
  const absl::Status& status = StatusOf(arg);
  *result_listener << status.ToString();
  return !status.ok() && ReasonOf(status) == reason &&
         MessageOf(status).find(text) != std::string_view::npos;
}

}  // namespace snapsync

#endif  // SNAPSYNC_TESTS_TESTING_STATUS_MATCHERS_H_
