// SPDX-License-Identifier: Apache-2.0
//
// Holds a stream of bytes to a rate. Used by one thread at a time.
#ifndef SNAPSYNC_COMMON_BASE_RATE_LIMITER_H_
#define SNAPSYNC_COMMON_BASE_RATE_LIMITER_H_

#include <chrono>
#include <cstdint>

namespace snapsync {

class RateLimiter {
 public:
  // 0: no limit.
  explicit RateLimiter(uint64_t bytes_per_second)
      : bytes_per_second_(bytes_per_second) {}

  // How long to wait before `bytes` more may go, and counts them as gone. What
  // was not used while nothing was sent is forgotten after a quarter of a
  // second, so that a pause makes no burst.
  std::chrono::nanoseconds Take(uint64_t bytes,
                                std::chrono::steady_clock::time_point now) {
    if (bytes_per_second_ == 0) return std::chrono::nanoseconds(0);
    const auto oldest = now - std::chrono::milliseconds(250);
    if (free_at_ < oldest) free_at_ = oldest;
    const auto wait =
        free_at_ > now ? free_at_ - now : std::chrono::nanoseconds(0);
    free_at_ += std::chrono::nanoseconds(
        static_cast<int64_t>(static_cast<double>(bytes) * 1e9 /
                             static_cast<double>(bytes_per_second_)));
    return wait;
  }

 private:
  const uint64_t bytes_per_second_;
  std::chrono::steady_clock::time_point free_at_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BASE_RATE_LIMITER_H_
