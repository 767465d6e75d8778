// SPDX-License-Identifier: Apache-2.0
//
// One simulated life of a replica, the same for the same seed: generation after
// generation is sent, with everything that can go wrong on the way, and at the
// end of each the sender is run once more without faults and must succeed.
#ifndef SNAPSYNC_TESTS_SIMULATION_HISTORY_H_
#define SNAPSYNC_TESTS_SIMULATION_HISTORY_H_

#include <cstdint>
#include <string>

#include "tests/simulation/machine.h"

namespace snapsync::simulation {

struct Outcome {
  std::string violation;  // empty: all promises were kept
  Counters counters;
};

// `trace`: every step to stderr.
Outcome RunHistory(uint64_t seed, Lie lie, bool trace);

}  // namespace snapsync::simulation

#endif  // SNAPSYNC_TESTS_SIMULATION_HISTORY_H_
