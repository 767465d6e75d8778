// SPDX-License-Identifier: Apache-2.0
#include "sender/retrying_agent.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace snapsync {
namespace {

using std::chrono::nanoseconds;
using std::chrono::seconds;

constexpr uint64_t kBlocks = 10;

// Loses its connection as often as it is told to: each call, and each
// comparison after two more blocks.
class UnsteadyAgent final : public AgentClient {
 public:
  int losses = 0;
  absl::Status answer;          // once it is not lost
  std::vector<uint64_t> begun;  // comparisons, at these blocks
  Id128 generation = Id128::Random();
  bool changes = false;  // another generation after each loss
  int calls = 0;

  absl::StatusOr<VolumeState> Describe(const std::string&) override {
    if (absl::Status s = Call(); !s.ok()) return s;
    return VolumeState{};
  }
  absl::Status TakeOver(const std::string&) override { return Call(); }
  absl::Status AbortSession(const std::string&) override { return Call(); }
  absl::StatusOr<Changes> ChangedSince(const ChangesRequest&) override {
    if (absl::Status s = Call(); !s.ok()) return s;
    return Changes{};
  }
  absl::StatusOr<Id128> HashBlocks(const HashRequest& request,
                                   const HashSink& sink) override {
    begun.push_back(request.first_block);
    const std::vector<Digest256> digests(1);
    uint64_t sent = 0;
    for (uint64_t block = request.first_block; block < kBlocks; ++block) {
      if (absl::Status s = sink(generation, block, digests); !s.ok()) return s;
      if (losses > 0 && ++sent == 2) {
        --losses;
        if (changes) generation = Id128::Random();
        return Lost();
      }
    }
    return generation;
  }
  absl::StatusOr<SessionGrant> OpenSession(const SessionRequest&) override {
    return Call();
  }
  absl::StatusOr<std::unique_ptr<SegmentStream>> StartSegment(
      const std::string&, const Id128&, uint64_t) override {
    return Call();
  }
  absl::StatusOr<Receipt> CommitSession(const CommitRequest&) override {
    return Call();
  }
  void Cancel() override {}

 private:
  static absl::Status Lost() { return Error(Reason::kConnection, "lost"); }
  absl::Status Call() {
    ++calls;
    if (losses == 0) return answer;
    --losses;
    return Lost();
  }
};

class RetryingAgentTest : public testing::Test {
 protected:
  RetryingAgentTest() {
    options_.now = [this] { return now_; };
    options_.sleep = [this](nanoseconds time) {
      now_ += time;
      slept_ += time;
    };
    options_.interrupted = [this] { return interrupted_; };
    options_.notice = [this](const std::string&) { ++notices_; };
  }

  absl::StatusOr<Id128> Compare() {
    return agent_.HashBlocks(
        {}, [this](const Id128&, uint64_t first, std::span<const Digest256>) {
          compared_.push_back(first);
          return absl::OkStatus();
        });
  }

  UnsteadyAgent unsteady_;
  PumpOptions options_;
  RetryingAgent agent_{unsteady_, options_};
  std::chrono::steady_clock::time_point now_{std::chrono::hours(1)};
  nanoseconds slept_{0};
  bool interrupted_ = false;
  int notices_ = 0;
  std::vector<uint64_t> compared_;
};

TEST_F(RetryingAgentTest, EachCallIsMadeAgain) {
  unsteady_.losses = 3;
  EXPECT_THAT(agent_.Describe(""), IsOk());
  unsteady_.losses = 3;
  EXPECT_THAT(agent_.TakeOver(""), IsOk());
  unsteady_.losses = 3;
  EXPECT_THAT(agent_.AbortSession(""), IsOk());
  unsteady_.losses = 3;
  EXPECT_THAT(agent_.ChangedSince({}), IsOk());
  EXPECT_EQ(unsteady_.calls, 16);
  EXPECT_EQ(notices_, 12);
}

TEST_F(RetryingAgentTest, AnAgentThatNeverAnsweredIsGivenUpSoon) {
  unsteady_.losses = 1000;
  EXPECT_THAT(agent_.Describe(""), FailsWith(Reason::kConnection, "lost"));
  EXPECT_GT(unsteady_.calls, 2);
  EXPECT_LE(slept_, options_.connect_for);
  // That there is no end to trying is meant for one that did.
  options_.retry_for = nanoseconds(0);
  slept_ = nanoseconds(0);
  EXPECT_THAT(agent_.Describe(""), FailsWith(Reason::kConnection, "lost"));
  EXPECT_LE(slept_, options_.connect_for);
}

TEST_F(RetryingAgentTest, OneThatAnsweredIsWaitedForLonger) {
  EXPECT_THAT(agent_.Describe(""), IsOk());
  unsteady_.losses = 1000;
  EXPECT_THAT(agent_.TakeOver(""), FailsWith(Reason::kConnection, "lost"));
  EXPECT_LE(slept_, options_.retry_for);
  EXPECT_GT(slept_, options_.retry_for - seconds(15));
}

TEST_F(RetryingAgentTest, WhatItSaysIsPassedOn) {
  unsteady_.answer = Error(Reason::kBusy, "busy");
  EXPECT_THAT(agent_.Describe(""), FailsWith(Reason::kBusy, "busy"));
  EXPECT_EQ(unsteady_.calls, 1);
}

TEST_F(RetryingAgentTest, AnInterruptEndsIt) {
  unsteady_.losses = 1000;
  interrupted_ = true;
  EXPECT_THAT(agent_.Describe(""),
              FailsWith(Reason::kConnection, "interrupted"));
  EXPECT_EQ(unsteady_.calls, 1);
}

TEST_F(RetryingAgentTest, TheCallsOfASessionAreThePumps) {
  unsteady_.losses = 3;
  EXPECT_THAT(agent_.OpenSession({}), FailsWith(Reason::kConnection, "lost"));
  EXPECT_THAT(agent_.StartSegment("", {}, 0),
              FailsWith(Reason::kConnection, "lost"));
  EXPECT_THAT(agent_.CommitSession({}), FailsWith(Reason::kConnection, "lost"));
}

TEST_F(RetryingAgentTest, AComparisonGoesOnWhereItWas) {
  unsteady_.losses = 4;
  const auto generation = Compare();
  ASSERT_THAT(generation, IsOk());
  EXPECT_EQ(*generation, unsteady_.generation);
  EXPECT_EQ(unsteady_.begun, (std::vector<uint64_t>{0, 2, 4, 6, 8}));
  EXPECT_EQ(compared_, (std::vector<uint64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
}

TEST_F(RetryingAgentTest, AsLongAsItMovesItIsNotGivenUp) {
  unsteady_.losses = 5;
  options_.connect_for = options_.retry_for = std::chrono::milliseconds(250);
  EXPECT_THAT(Compare(), IsOk());
}

TEST_F(RetryingAgentTest, WhatWasComparedOfAnotherGenerationIsVoid) {
  unsteady_.losses = 1;
  unsteady_.changes = true;
  EXPECT_THAT(Compare(), FailsWith(Reason::kBaseMismatch, "somebody else"));
}

}  // namespace
}  // namespace snapsync
