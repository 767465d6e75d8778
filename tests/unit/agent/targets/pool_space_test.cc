// SPDX-License-Identifier: Apache-2.0
#include "agent/targets/pool_space.h"

#include <array>
#include <memory>
#include <thread>
#include <vector>

#include "common/base/error.h"
#include "common/base/mutex.h"
#include "common/base/units.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace snapsync {
namespace {

using ::testing::UnorderedElementsAre;

constexpr uint64_t kBlock = 64 * kKiB;
constexpr uint64_t kBlocks = 1000;
constexpr uint64_t kReserve = kBlocks / 20;

// A pool to which several write at once: no write ends before so many have
// asked for the status. Once that is `full_after` others have filled it.
class Pool {
 public:
  Pool(uint64_t free, int to_ask, int full_after = 1000)
      : free_(free), to_ask_(to_ask), full_after_(full_after) {}

  absl::StatusOr<PoolStatus> Status() {
    const MutexLock lock(&mutex_);
    PoolStatus status;
    status.mode = asked_ < full_after_ ? "rw" : "out_of_data_space";
    ++asked_;
    status.total_data_blocks = kBlocks;
    status.used_data_blocks = kBlocks - free_;
    status.total_metadata_blocks = 10000;
    return status;
  }
  // `seen`: by those who ask while the write is still under way.
  void Take(uint64_t blocks, bool seen) {
    const MutexLock lock(&mutex_);
    if (seen) free_ -= blocks;
    mutex_.Await([&] { return asked_ >= to_ask_; });
    if (!seen) free_ -= blocks;
  }
  uint64_t free() {
    const MutexLock lock(&mutex_);
    return free_;
  }

 private:
  Mutex mutex_;
  uint64_t free_;
  const int to_ask_;
  const int full_after_;
  int asked_ = 0;
};

class PoolWriter final : public BlockWriter {
 public:
  PoolWriter(Pool* pool, bool seen) : pool_(pool), seen_(seen) {}

  const std::string& name() const override { return name_; }
  uint64_t size() const override { return kBlocks * kBlock; }
  absl::Status Write(std::span<const WriteOperation> operations) override {
    for (const WriteOperation& operation : operations) {
      pool_->Take(operation.data.size() / kBlock, seen_);
    }
    return absl::OkStatus();
  }
  absl::Status Zero(Extent) override { return absl::OkStatus(); }
  absl::Status Flush() override { return absl::OkStatus(); }
  absl::Status ReadBack(std::span<const ReadOperation>) override {
    return absl::OkStatus();
  }

 private:
  const std::string name_ = "stage";
  Pool* const pool_;
  const bool seen_;
};

// What becomes of three writes of ten blocks each at the same time, by two
// sessions to volumes of one pool.
std::vector<absl::StatusCode> WriteAtOnce(Pool* pool, bool seen) {
  const auto open = [&] {
    return PoolSpace([pool] { return pool->Status(); }, kBlock, "vg/pool",
                     "LVM-of-this-test")
        .Watch(std::make_unique<PoolWriter>(pool, seen));
  };
  const std::array writers = {open(), open()};
  const std::vector<std::byte> data(10 * kBlock);
  std::array<absl::Status, 3> results;
  std::vector<std::thread> threads;
  for (size_t i = 0; i < results.size(); ++i) {
    threads.emplace_back([&, i] {
      const WriteOperation write{.offset = i * data.size(), .data = data};
      results[i] = writers[i % 2]->Write({&write, 1});
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<absl::StatusCode> codes;
  for (const absl::Status& result : results) {
    if (!result.ok()) {
      EXPECT_EQ(ReasonOf(result), Reason::kNoSpace) << result;
    }
    codes.push_back(result.code());
  }
  return codes;
}

TEST(PoolSpace, WritesAtOnceLeaveTheReserve) {
  for (const bool seen : {false, true}) {
    Pool pool(kReserve + 25, 3);
    EXPECT_THAT(
        WriteAtOnce(&pool, seen),
        UnorderedElementsAre(absl::StatusCode::kOk, absl::StatusCode::kOk,
                             absl::StatusCode::kResourceExhausted));
    EXPECT_EQ(pool.free(), kReserve + 5);
  }
}

TEST(PoolSpace, WritesAtOnceMayTakeAllAboveTheReserve) {
  for (const bool seen : {false, true}) {
    Pool pool(kReserve + 30, 3);
    EXPECT_THAT(
        WriteAtOnce(&pool, seen),
        UnorderedElementsAre(absl::StatusCode::kOk, absl::StatusCode::kOk,
                             absl::StatusCode::kOk));
    EXPECT_EQ(pool.free(), kReserve);
  }
}

TEST(PoolSpace, NobodyWaitsForWritesThatStandStillInAFullPool) {
  // The first write ends when two more were refused: they have asked twice.
  Pool pool(kReserve + 15, 5, 3);
  EXPECT_THAT(WriteAtOnce(&pool, false),
              UnorderedElementsAre(absl::StatusCode::kOk,
                                   absl::StatusCode::kResourceExhausted,
                                   absl::StatusCode::kResourceExhausted));
}

}  // namespace
}  // namespace snapsync
