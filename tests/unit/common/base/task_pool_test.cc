// SPDX-License-Identifier: Apache-2.0
#include "common/base/task_pool.h"

#include <atomic>
#include <vector>

#include "gtest/gtest.h"

namespace snapsync {
namespace {

TEST(TaskPool, AllTasksHaveRunWhenItIsGone) {
  std::atomic<int> sum{0};
  {
    TaskPool pool(3);
    for (int i = 1; i <= 1000; ++i) pool.Run([&sum, i] { sum += i; });
  }
  EXPECT_EQ(sum, 500500);
}

TEST(TaskPool, OneThreadRunsThemInTheirOrder) {
  std::vector<int> order;
  std::vector<int> expected;
  {
    TaskPool pool(1);
    for (int i = 0; i < 100; ++i) {
      pool.Run([&order, i] { order.push_back(i); });
      expected.push_back(i);
    }
  }
  EXPECT_EQ(order, expected);
}

TEST(TaskPool, WithoutThreadsATaskHasRunWhenRunReturns) {
  TaskPool pool(0);
  const std::thread::id self = std::this_thread::get_id();
  std::thread::id ran;
  pool.Run([&ran] { ran = std::this_thread::get_id(); });
  EXPECT_EQ(ran, self);
}

}  // namespace
}  // namespace snapsync
