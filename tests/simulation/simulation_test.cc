// SPDX-License-Identifier: Apache-2.0
//
// SNAPSYNC_SEED=N     runs history N alone, with a trace of every step
// SNAPSYNC_SEEDS=N    runs N histories instead of 10,000
#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "common/base/log.h"
#include "tests/simulation/history.h"

namespace snapsync::simulation {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kDefaultSeeds = 1000;
#else
constexpr uint64_t kDefaultSeeds = 10'000;
#endif

std::optional<uint64_t> Environment(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr) return std::nullopt;
  return std::strtoull(text, nullptr, 10);
}

uint64_t Seeds() {
  return Environment("SNAPSYNC_SEEDS").value_or(kDefaultSeeds);
}

// Runs histories [0, count) on all processors, until `stop_at_violation`.
struct Totals {
  Counters counters;
  uint64_t violations = 0;
  uint64_t first_seed = 0;
  std::string first_violation;
};

Totals RunHistories(uint64_t count, Lie lie, bool stop_at_violation) {
  Totals totals;
  std::mutex mutex;
  std::atomic<uint64_t> next{0};
  std::atomic<bool> stop{false};
  const auto work = [&] {
    for (uint64_t seed = next++; seed < count && !stop; seed = next++) {
      const Outcome outcome = RunHistory(seed, lie, false);
      const std::lock_guard lock(mutex);
      totals.counters.Add(outcome.counters);
      if (outcome.violation.empty()) continue;
      if (totals.violations++ == 0 || seed < totals.first_seed) {
        totals.first_seed = seed;
        totals.first_violation = outcome.violation;
      }
      stop = stop_at_violation;
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = std::thread::hardware_concurrency(); i > 0; --i) {
    threads.emplace_back(work);
  }
  for (std::thread& thread : threads) thread.join();
  return totals;
}

class Simulation : public testing::Test {
 protected:
  // The agent warns of what is done to it, ten times in each history.
  static void SetUpTestSuite() {
    // Buffers of megabytes come and go: not from the kernel each time.
    mallopt(M_MMAP_THRESHOLD, 64 << 20);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    LogOptions options;
    options.console_level = Severity::kError;
    ASSERT_TRUE(StartLog(options).ok());
  }
};

TEST_F(Simulation, EveryHistoryKeepsItsPromises) {
  if (const auto seed = Environment("SNAPSYNC_SEED")) {
    const Outcome outcome = RunHistory(*seed, Lie::kNone, true);
    EXPECT_EQ(outcome.violation, "");
    return;
  }
  const Totals totals = RunHistories(Seeds(), Lie::kNone, false);
  std::fprintf(stderr, "%llu histories: %s\n",
               static_cast<unsigned long long>(Seeds()),
               totals.counters.ToString().c_str());
  EXPECT_EQ(totals.violations, 0U)
      << "first: " << totals.first_violation
      << "\nto see it again: SNAPSYNC_SEED=" << totals.first_seed;
}

TEST_F(Simulation, TheSameSeedGivesTheSameHistory) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    EXPECT_EQ(RunHistory(seed, Lie::kNone, false).counters.ToString(),
              RunHistory(seed, Lie::kNone, false).counters.ToString());
  }
}

// What the histories are for: each of these breaks one promise on which the
// others rest, and must be found.
class Mutant : public Simulation, public testing::WithParamInterface<Lie> {};

TEST_P(Mutant, IsFound) {
  const Totals totals = RunHistories(3000, GetParam(), true);
  EXPECT_GT(totals.violations, 0U);
  if (totals.violations == 0) return;
  std::fprintf(stderr, "found by seed %llu: %s\n",
               static_cast<unsigned long long>(totals.first_seed),
               totals.first_violation.c_str());
}

std::string NameOf(const testing::TestParamInfo<Lie>& lie) {
  switch (lie.param) {
    case Lie::kNone:
      return "None";
    case Lie::kStageFlushDoesNothing:
      return "StageFlushDoesNothing";
    case Lie::kJournalFlushDoesNothing:
      return "JournalFlushDoesNothing";
    case Lie::kStageFlushAfterJournal:
      return "WatermarkStoredBeforeTheData";
    case Lie::kStageFlushTriedAgain:
      return "FailedFlushTriedAgain";
    case Lie::kRecordNotDurable:
      return "RecordNotDurable";
    case Lie::kRecordAfterSwitch:
      return "CommitRecordedAfterTheSwitch";
    case Lie::kLateChunksWritten:
      return "FenceIgnored";
  }
  return "Unknown";
}

INSTANTIATE_TEST_SUITE_P(
    Simulation, Mutant,
    testing::Values(Lie::kStageFlushDoesNothing, Lie::kJournalFlushDoesNothing,
                    Lie::kStageFlushAfterJournal, Lie::kStageFlushTriedAgain,
                    Lie::kRecordNotDurable, Lie::kRecordAfterSwitch,
                    Lie::kLateChunksWritten),
    NameOf);

}  // namespace
}  // namespace snapsync::simulation
