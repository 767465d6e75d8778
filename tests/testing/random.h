// SPDX-License-Identifier: Apache-2.0
//
// Random numbers that are the same for the same seed on every machine (the
// distributions of <random> are not): splitmix64, the generator that Java's
// SplittableRandom uses. Used by one thread at a time.
#ifndef SNAPSYNC_TESTS_TESTING_RANDOM_H_
#define SNAPSYNC_TESTS_TESTING_RANDOM_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/base/id128.h"

namespace snapsync {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    state_ += 0x9E3779B97F4A7C15U;
    uint64_t mixed = state_;
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9U;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBU;
    return mixed ^ (mixed >> 31);
  }
  // In [0, bound). Requires: bound > 0.
  uint64_t Below(uint64_t bound) { return Next() % bound; }
  // In [low, high].
  uint64_t Between(uint64_t low, uint64_t high) {
    return low + Below(high - low + 1);
  }
  bool Percent(double chance) {
    return static_cast<double>(Next() >> 11) * 0x1.0p-53 * 100 < chance;
  }
  void Fill(std::span<std::byte> bytes) {
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(Next());
  }
  Id128 Id() {
    Id128 id;
    Fill(id.bytes);
    return id;
  }

 private:
  uint64_t state_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_TESTS_TESTING_RANDOM_H_
