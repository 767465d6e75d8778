// SPDX-License-Identifier: Apache-2.0
#include "common/block/uring.h"

#include <fcntl.h>

#include <vector>

#include "common/base/unique_fd.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync {
namespace {

class UringTest : public testing::Test {
 protected:
  UringTest() {
    WriteContents(path_, std::string(100'000, 'a'));
    auto ring = Uring::Create();
    EXPECT_THAT(ring, IsOk());
    ring_ = *std::move(ring);
  }
  UniqueFd Open(int flags) const {
    return UniqueFd(::open(path_.c_str(), flags | O_CLOEXEC));
  }

  const TemporaryFolder folder_;
  const std::string path_ = folder_ / "file";
  std::unique_ptr<Uring> ring_;
};

TEST_F(UringTest, AFailedOperationSaysWhereAndTheRingGoesOn) {
  const UniqueFd fd = Open(O_RDONLY);
  std::vector<std::byte> data(10);
  std::vector<Uring::Operation> write = {{70, data.data(), data.size()}};
  const absl::Status status =
      ring_->Run(Uring::Direction::kWrite, fd.get(), "disk", write);
  EXPECT_THAT(status, FailsWith(Reason::kIo,
                                "disk: write of 10 bytes at offset 70 failed"));
  std::vector<Uring::Operation> read = {{70, data.data(), data.size()}};
  EXPECT_THAT(ring_->Run(Uring::Direction::kRead, fd.get(), "disk", read),
              IsOk());
  EXPECT_EQ(data[0], std::byte{'a'});
}

TEST_F(UringTest, AReadThatIsShortGoesOnAndEndsAtTheEndOfTheFile) {
  const UniqueFd fd = Open(O_RDONLY);
  std::vector<std::byte> data(100'001);
  std::vector<Uring::Operation> read = {{0, data.data(), data.size()}};
  EXPECT_THAT(ring_->Run(Uring::Direction::kRead, fd.get(), "disk", read),
              FailsWith(Reason::kIo, "read of 1 bytes at offset 100000"));
}

TEST_F(UringTest, MoreOperationsThanTheRingHoldsAreAllDone) {
  const UniqueFd fd = Open(O_RDWR);
  std::vector<std::byte> data(1000, std::byte{'b'});
  std::vector<Uring::Operation> writes;
  for (uint64_t i = 0; i < data.size(); ++i) {
    writes.push_back({i * 100, data.data() + i, 1});
  }
  ASSERT_THAT(ring_->Run(Uring::Direction::kWrite, fd.get(), "disk", writes),
              IsOk());
  std::string expected(100'000, 'a');
  for (uint64_t i = 0; i < data.size(); ++i) expected[i * 100] = 'b';
  EXPECT_EQ(ContentsOf(path_), expected);
}

TEST_F(UringTest, NothingToDoIsDone) {
  const UniqueFd fd = Open(O_RDONLY);
  EXPECT_THAT(ring_->Run(Uring::Direction::kRead, fd.get(), "disk", {}),
              IsOk());
}

}  // namespace
}  // namespace snapsync
