// SPDX-License-Identifier: Apache-2.0
#include "common/base/read_ahead.h"

#include "common/base/error.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace snapsync {
namespace {

class ReadAheadTest : public testing::TestWithParam<bool> {
 protected:
  static std::vector<std::unique_ptr<int>> Batches(size_t count) {
    std::vector<std::unique_ptr<int>> batches;
    for (size_t i = 0; i < count; ++i) {
      batches.push_back(std::make_unique<int>());
    }
    return batches;
  }
};

INSTANTIATE_TEST_SUITE_P(Threads, ReadAheadTest, testing::Bool(),
                         [](const auto& in_thread) {
                           return in_thread.param ? "Own" : "Callers";
                         });

TEST_P(ReadAheadTest, BatchesComeInOrderUpToTheEndWhichStays) {
  int next = 0;
  ReadAhead<int> batches(
      Batches(3),
      [&next](int& batch) -> absl::StatusOr<bool> {
        if (next == 100) return false;
        batch = next++;
        return true;
      },
      GetParam());
  for (int i = 0; i < 100; ++i) {
    const auto batch = batches.Next();
    ASSERT_THAT(batch, IsOk());
    ASSERT_NE(*batch, nullptr);
    EXPECT_EQ(**batch, i);
  }
  for (int i = 0; i < 2; ++i) {
    const auto batch = batches.Next();
    ASSERT_THAT(batch, IsOk());
    EXPECT_EQ(*batch, nullptr);
  }
}

TEST_P(ReadAheadTest, AnErrorComesAfterTheBatchesBeforeItAndStays) {
  int next = 0;
  ReadAhead<int> batches(
      Batches(3),
      [&next](int& batch) -> absl::StatusOr<bool> {
        if (next == 2) return Error(Reason::kIo, "unreadable");
        batch = next++;
        return true;
      },
      GetParam());
  for (int i = 0; i < 2; ++i) {
    const auto batch = batches.Next();
    ASSERT_THAT(batch, IsOk());
    EXPECT_EQ(**batch, i);
  }
  EXPECT_THAT(batches.Next(), FailsWith(Reason::kIo, "unreadable"));
  EXPECT_THAT(batches.Next(), FailsWith(Reason::kIo, "unreadable"));
}

TEST_P(ReadAheadTest, ItCanBeGivenUpAtAnyTime) {
  for (int used = 0; used < 5; ++used) {
    ReadAhead<int> batches(
        Batches(2),
        [](int& batch) -> absl::StatusOr<bool> {
          ++batch;
          return true;
        },
        GetParam());
    for (int i = 0; i < used; ++i) EXPECT_THAT(batches.Next(), IsOk());
  }
}

}  // namespace
}  // namespace snapsync
