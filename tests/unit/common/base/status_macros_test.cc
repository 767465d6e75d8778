// SPDX-License-Identifier: Apache-2.0
#include "common/base/status_macros.h"

#include <memory>

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace snapsync {
namespace {

absl::Status ReturnEarly(const absl::Status& status, bool& went_on) {
  SNAPSYNC_RETURN_IF_ERROR(status);
  went_on = true;
  return absl::OkStatus();
}

absl::StatusOr<int> AddOne(absl::StatusOr<std::unique_ptr<int>> value) {
  SNAPSYNC_ASSIGN_OR_RETURN(const std::unique_ptr<int> moved, std::move(value));
  return *moved + 1;
}

TEST(StatusMacros, AnErrorReturnsAtOnce) {
  bool went_on = false;
  EXPECT_THAT(ReturnEarly(Error(Reason::kBusy, "held"), went_on),
              FailsWith(Reason::kBusy, "held"));
  EXPECT_FALSE(went_on);
  EXPECT_THAT(AddOne(Error(Reason::kIo, "broken")),
              FailsWith(Reason::kIo, "broken"));
}

TEST(StatusMacros, WithoutAnErrorItGoesOn) {
  bool went_on = false;
  EXPECT_THAT(ReturnEarly(absl::OkStatus(), went_on), IsOk());
  EXPECT_TRUE(went_on);
  EXPECT_EQ(*AddOne(std::make_unique<int>(41)), 42);
}

}  // namespace
}  // namespace snapsync
