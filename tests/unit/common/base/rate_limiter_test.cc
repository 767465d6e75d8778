// SPDX-License-Identifier: Apache-2.0
#include "common/base/rate_limiter.h"

#include "gtest/gtest.h"

namespace snapsync {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;
using Time = std::chrono::steady_clock::time_point;

// A clock that goes on by the waits that are asked for.
class RateLimiterTest : public testing::Test {
 protected:
  void Send(RateLimiter& limiter, uint64_t bytes) {
    now_ += limiter.Take(bytes, now_);
  }
  const Time start_{std::chrono::hours(1)};
  Time now_ = start_;
};

TEST_F(RateLimiterTest, WithoutALimitNothingWaits) {
  RateLimiter limiter(0);
  for (int i = 0; i < 100; ++i) Send(limiter, uint64_t{1} << 40);
  EXPECT_EQ(now_, start_);
}

TEST_F(RateLimiterTest, AStreamIsHeldToTheRate) {
  RateLimiter limiter(1000);
  for (int i = 0; i < 1000; ++i) Send(limiter, 100);
  // 100,000 bytes, but for the quarter of a second at the start and the last
  // piece, after which nobody waited.
  EXPECT_GE(now_ - start_, seconds(99));
  EXPECT_LE(now_ - start_, seconds(100));
}

TEST_F(RateLimiterTest, APieceLargerThanASecondIsPaidForAfterwards) {
  RateLimiter limiter(1000);
  EXPECT_EQ(limiter.Take(10'000, now_), nanoseconds(0));
  const nanoseconds wait = limiter.Take(1, now_);
  EXPECT_GT(wait, milliseconds(9700));
  EXPECT_LE(wait, seconds(10));
}

TEST_F(RateLimiterTest, APauseMakesNoBurst) {
  RateLimiter limiter(1000);
  Send(limiter, 1000);
  now_ += std::chrono::hours(1);
  const Time resumed = now_;
  for (int i = 0; i < 100; ++i) Send(limiter, 100);
  EXPECT_GE(now_ - resumed, milliseconds(9600));
}

}  // namespace
}  // namespace snapsync
