// SPDX-License-Identifier: Apache-2.0
#include "common/block/device_holders.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <fstream>

#include "common/base/unique_fd.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace snapsync {
namespace {

using ::testing::HasSubstr;

class DeviceHolders : public ::testing::Test {
 protected:
  DeviceHolders() { std::ofstream(path_) << "data"; }
  ~DeviceHolders() override { ::unlink(path_.c_str()); }

  const std::string path_ =
      ::testing::TempDir() + "/snapsync-holders-" + std::to_string(::getpid());
};

// Another process that has `path` open, for as long as this lives.
class OtherProcess {
 public:
  explicit OtherProcess(const std::string& path) {
    std::array<int, 2> ready{};
    EXPECT_EQ(::pipe(ready.data()), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      const int fd = ::open(path.c_str(), O_RDONLY);
      const char byte = fd >= 0 ? 'y' : 'n';
      if (::write(ready[1], &byte, 1) == 1) ::pause();
      ::_exit(0);
    }
    char byte = 0;
    EXPECT_EQ(::read(ready[0], &byte, 1), 1);
    EXPECT_EQ(byte, 'y');
    ::close(ready[0]);
    ::close(ready[1]);
  }
  ~OtherProcess() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  OtherProcess(const OtherProcess&) = delete;
  OtherProcess& operator=(const OtherProcess&) = delete;

  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = 0;
};

TEST_F(DeviceHolders, AFileThatDoesNotExistIsAnError) {
  EXPECT_FALSE(DescribeHolders(path_ + "-missing").ok());
}

TEST_F(DeviceHolders, AnotherProcessIsNamed) {
  const OtherProcess other(path_);
  const auto text = DescribeHolders(path_);
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_THAT(*text, HasSubstr("open in process " +
                               std::to_string(other.pid()) + " ("));
}

TEST_F(DeviceHolders, AHardLinkIsTheSameFile) {
  const std::string link = path_ + "-link";
  ASSERT_EQ(::link(path_.c_str(), link.c_str()), 0);
  const OtherProcess other(link);
  const auto text = DescribeHolders(path_);
  ::unlink(link.c_str());
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_THAT(*text, HasSubstr("open in process"));
}

TEST_F(DeviceHolders, NobodyIsEmptyAndOurOwnDescriptorsDoNotCount) {
  EXPECT_EQ(DescribeHolders(path_).value_or("error"), "");
  EXPECT_FALSE(IsOpenHere(path_).value_or(true));
  const UniqueFd own(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(DescribeHolders(path_).value_or("error"), "");
  EXPECT_TRUE(IsOpenHere(path_).value_or(false));
}

TEST(MountPath, EscapesAreUndone) {
  EXPECT_EQ(UnescapeMountPath("/mnt/a\\040b\\134c"), "/mnt/a b\\c");
  EXPECT_EQ(UnescapeMountPath("/mnt\\9"), "/mnt\\9");
  EXPECT_EQ(UnescapeMountPath("\\"), "\\");
}

}  // namespace
}  // namespace snapsync
