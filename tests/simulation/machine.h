// SPDX-License-Identifier: Apache-2.0
//
// The computer that the simulated agent runs on: it can lose power, its agent
// can be killed, and its disks can fail. Every port of the agent asks it before
// and after each effect, so that all of that can happen at any of these points.
//
// An agent that died goes on running (there is no way to unwind its calls), but
// nothing that it does has an effect any more: its ports were opened in an
// earlier boot.
//
// Used by one thread at a time.
#ifndef SNAPSYNC_TESTS_SIMULATION_MACHINE_H_
#define SNAPSYNC_TESTS_SIMULATION_MACHINE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "tests/testing/random.h"

namespace snapsync::simulation {

// Promises that the simulated disks, store and network break, one at a time:
// the mutants that the simulation has to find (mutant_test.cc).
enum class Lie {
  kNone,
  kStageFlushDoesNothing,
  kJournalFlushDoesNothing,
  kStageFlushAfterJournal,  // so the watermark is stored before the data
  kStageFlushTriedAgain,    // and called good after a failure
  kRecordNotDurable,
  kRecordAfterSwitch,  // COMMITTING is stored after the target was switched
  kLateChunksWritten,  // what the fence refused is written all the same
};

// Chances in percent, at each point where the thing could happen.
struct FaultRates {
  double power_cut = 0;
  double kill = 0;
  double disk_error = 0;
  double broken_call = 0;
  double lost_reply = 0;
  double corruption = 0;
  double sender_killed = 0;
  double foreign_write = 0;
  int left = 0;  // faults that may still happen
};

// How often what happened, to show that a simulation is not empty.
struct Counters {
  uint64_t steps = 0;
  uint64_t power_cuts = 0;
  uint64_t kills = 0;
  uint64_t disk_errors = 0;
  uint64_t broken_calls = 0;
  uint64_t lost_replies = 0;
  uint64_t corruptions = 0;
  uint64_t senders_killed = 0;
  uint64_t foreign_writes = 0;
  uint64_t late_chunks = 0;
  uint64_t fenced = 0;  // segments
  uint64_t runs = 0;
  uint64_t segments = 0;
  uint64_t resumed = 0;
  uint64_t superseded = 0;
  uint64_t compared = 0;
  uint64_t adopted = 0;  // what was on the volume became a generation
  uint64_t refused = 0;
  uint64_t committed_before = 0;  // the reply of an earlier commit was lost
  uint64_t generations = 0;

  void Add(const Counters& other);
  std::string ToString() const;
};

class Machine {
 public:
  Machine(Random* random, Lie lie, bool trace)
      : random_(random), lie_(lie), trace_(trace) {}

  // Which start of the agent this is. A port of an earlier one is dead.
  uint64_t boot() const { return boot_; }
  bool up() const { return up_; }
  void Boot();

  // Asked by a port right before and right after its effect; an error means
  // that the agent is dead.
  absl::Status Before(uint64_t boot, std::string_view what);
  absl::Status After(uint64_t boot, std::string_view what);
  // Whether the operation that is about to happen fails.
  bool DiskFails(std::string_view what);

  // Rolls the dice for a fault of the network or the world outside.
  bool Happens(double FaultRates::*rate);

  void CutPower();
  void Kill();

  // Called when the power is cut; what a disk does then.
  void OnPowerCut(std::function<void()> action) {
    on_power_cut_.push_back(std::move(action));
  }
  // Called after each effect; what must hold at any time is checked there.
  void OnStep(std::function<void()> action) { on_step_ = std::move(action); }

  // The first broken promise is kept.
  void Violate(const std::string& what);
  const std::string& violation() const { return violation_; }

  bool tracing() const { return trace_; }
  void Trace(std::string_view line) const;

  Random& random() { return *random_; }
  Lie lie() const { return lie_; }

  FaultRates rates;
  Counters counters;

 private:
  absl::Status Dead() const;
  absl::Status Point(uint64_t boot, std::string_view when,
                     std::string_view what);

  Random* const random_;
  const Lie lie_;
  const bool trace_;
  uint64_t boot_ = 0;
  bool up_ = false;
  std::vector<std::function<void()>> on_power_cut_;
  std::function<void()> on_step_;
  std::string violation_;
};

}  // namespace snapsync::simulation

#endif  // SNAPSYNC_TESTS_SIMULATION_MACHINE_H_
