// SPDX-License-Identifier: Apache-2.0
#include "common/base/unique_fd.h"

#include <fcntl.h>

#include "gtest/gtest.h"

namespace snapsync {
namespace {

int OpenNull() { return ::open("/dev/null", O_RDONLY | O_CLOEXEC); }
bool IsOpen(int fd) { return ::fcntl(fd, F_GETFD) != -1; }

TEST(UniqueFd, TheDescriptorIsClosedAtTheEnd) {
  const int fd = OpenNull();
  {
    const UniqueFd owner(fd);
    EXPECT_TRUE(owner.valid());
    EXPECT_EQ(owner.get(), fd);
    EXPECT_TRUE(IsOpen(fd));
  }
  EXPECT_FALSE(IsOpen(fd));
  EXPECT_FALSE(UniqueFd().valid());
}

TEST(UniqueFd, MovingTakesItAndClosesTheOldOne) {
  const int first = OpenNull();
  const int second = OpenNull();
  UniqueFd a(first);
  UniqueFd b(second);
  b = std::move(a);
  EXPECT_EQ(b.get(), first);
  EXPECT_FALSE(IsOpen(second));
  UniqueFd c(std::move(b));
  EXPECT_EQ(c.get(), first);
  EXPECT_TRUE(IsOpen(first));
  c.Reset();
  EXPECT_FALSE(c.valid());
  EXPECT_FALSE(IsOpen(first));
}

}  // namespace
}  // namespace snapsync
