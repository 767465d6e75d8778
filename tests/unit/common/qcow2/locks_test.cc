// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/locks.h"

#include <fcntl.h>

#include <optional>

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/common/qcow2/running_qemu.h"

namespace snapsync::qcow2 {
namespace {

class LocksTest : public ::testing::Test {
 protected:
  void SetUp() override {
    MustRun({"qemu-img", "create", "-q", "-f", "qcow2", image_, "1M"});
  }

  UniqueFd Open() const {
    return UniqueFd(::open(image_.c_str(), O_RDWR | O_CLOEXEC));
  }
  bool QemuReads() const {
    return Succeeds({"qemu-io", "-r", "-c", "read 0 512", image_});
  }
  bool QemuWrites() const {
    return Succeeds({"qemu-io", "-c", "write 0 512", image_});
  }

  TemporaryFolder folder_;
  const std::string image_ = folder_ / "disk.qcow2";
};

TEST_F(LocksTest, AReaderLetsOthersReadAndNobodyWrite) {
  const UniqueFd fd = Open();
  const UniqueFd other = Open();
  {
    const auto lock = ImageLock::ForReading(fd.get(), image_);
    ASSERT_THAT(lock, IsOk());
    EXPECT_TRUE(QemuReads());
    EXPECT_FALSE(QemuWrites());
    EXPECT_THAT(ImageLock::ForReading(other.get(), image_), IsOk());
    EXPECT_THAT(ImageLock::ForWriting(other.get(), image_),
                FailsWith(Reason::kBusy, image_));
    // The refused one left nothing behind.
    EXPECT_TRUE(QemuReads());
  }
  EXPECT_TRUE(QemuWrites());
}

TEST_F(LocksTest, AWriterIsAlone) {
  const UniqueFd fd = Open();
  const UniqueFd other = Open();
  {
    const auto lock = ImageLock::ForWriting(fd.get(), image_);
    ASSERT_THAT(lock, IsOk());
    EXPECT_FALSE(QemuReads());
    EXPECT_FALSE(QemuWrites());
    EXPECT_THAT(ImageLock::ForReading(other.get(), image_),
                FailsWith(Reason::kBusy, image_));
    EXPECT_THAT(ImageLock::ForWriting(other.get(), image_),
                FailsWith(Reason::kBusy, image_));
    EXPECT_FALSE(QemuReads());
  }
  EXPECT_TRUE(QemuWrites());
}

TEST_F(LocksTest, OfAMovedObjectIsHeldByTheOtherOne) {
  const UniqueFd fd = Open();
  std::optional<ImageLock> kept;
  {
    auto lock = ImageLock::ForReading(fd.get(), image_);
    ASSERT_THAT(lock, IsOk());
    kept.emplace(*std::move(lock));
  }
  EXPECT_FALSE(QemuWrites());
  kept.reset();
  EXPECT_TRUE(QemuWrites());
}

TEST_F(LocksTest, AnImageThatAMachineWritesToIsBusy) {
  const UniqueFd fd = Open();
  {
    const OpenInQemu machine(image_, OpenInQemu::Mode::kReadWrite);
    EXPECT_THAT(ImageLock::ForReading(fd.get(), image_),
                FailsWith(Reason::kBusy, "qemu-nbd"));
    EXPECT_THAT(ImageLock::ForWriting(fd.get(), image_),
                FailsWith(Reason::kBusy, "qemu-nbd"));
  }
  EXPECT_THAT(ImageLock::ForReading(fd.get(), image_), IsOk());
  EXPECT_THAT(ImageLock::ForWriting(fd.get(), image_), IsOk());
}

TEST_F(LocksTest, AnImageThatAMachineReadsCanBeReadAndNotWritten) {
  const UniqueFd fd = Open();
  const OpenInQemu machine(image_, OpenInQemu::Mode::kReadOnly);
  EXPECT_THAT(ImageLock::ForReading(fd.get(), image_), IsOk());
  EXPECT_THAT(ImageLock::ForWriting(fd.get(), image_),
              FailsWith(Reason::kBusy, "stop the virtual machine"));
}

}  // namespace
}  // namespace snapsync::qcow2
