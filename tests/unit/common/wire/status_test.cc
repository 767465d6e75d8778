// SPDX-License-Identifier: Apache-2.0
#include "common/wire/status.h"

#include <gtest/gtest.h>

#include <string>

#include "common/base/error.h"

namespace snapsync {
namespace {

TEST(WireStatusTest, EveryReasonArrivesWithItsText) {
  EXPECT_TRUE(wire::FromGrpc(wire::ToGrpc(absl::OkStatus())).ok());
  for (int number = 1; number <= kLastReason; ++number) {
    const auto reason = static_cast<Reason>(number);
    const absl::Status arrived =
        wire::FromGrpc(wire::ToGrpc(Error(reason, "what happened")));
    EXPECT_EQ(ReasonOf(arrived), reason);
    EXPECT_EQ(MessageOf(arrived), "what happened");
  }
}

TEST(WireStatusTest, WhatNoAgentSaidIsAConnectionThatMayComeBack) {
  EXPECT_EQ(ReasonOf(wire::FromGrpc(
                {grpc::StatusCode::UNAVAILABLE, "Socket closed"})),
            Reason::kConnection);
  EXPECT_EQ(
      ReasonOf(wire::FromGrpc({grpc::StatusCode::PERMISSION_DENIED, "no"})),
      Reason::kPermission);
}

TEST(WireStatusTest, DetailsThatMakeNoSenseAreIgnored) {
  EXPECT_EQ(ReasonOf(wire::FromGrpc({grpc::StatusCode::INTERNAL, "x",
                                     std::string("\xff\x00garbage", 9)})),
            Reason::kConnection);
}

TEST(WireStatusTest, LongTextsAreCutSoThatTheDetailsSurvive) {
  const grpc::Status status =
      wire::ToGrpc(Error(Reason::kIo, std::string(100000, 'x')));
  EXPECT_LT(status.error_message().size() + status.error_details().size(),
            size_t{4097});
  EXPECT_EQ(ReasonOf(wire::FromGrpc(status)), Reason::kIo);
}

}  // namespace
}  // namespace snapsync
