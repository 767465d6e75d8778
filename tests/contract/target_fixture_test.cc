// SPDX-License-Identifier: Apache-2.0
//
// The kinds of target, for target_contract_test.cc and the tests of each
// kind.
#include <fcntl.h>
#include <linux/loop.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>
#include <utility>

#include "common/base/aligned_buffer.h"
#include "common/base/unique_fd.h"
#include "common/block/file_device.h"
#include "gtest/gtest.h"
#include "tests/contract/target_fixture.h"
#include "tests/testing/qemu.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync {
namespace {

constexpr uint64_t kSize = 4 << 20;

std::string UniqueName(const std::string& prefix) {
  static std::atomic<int> count{0};
  return prefix + "-" + std::to_string(::getpid()) + "-" +
         std::to_string(count++);
}

class FileFixture final : public TargetFixture {
 public:
  FileFixture() { std::filesystem::create_directories(folder_); }
  ~FileFixture() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<Target> Make() override { return MakeFileTarget(path()); }
  std::unique_ptr<Target> MakeOther() override {
    return MakeFileTarget(folder_ + "/other");
  }
  std::string path() const override { return folder_ + "/volume"; }
  uint64_t size() const override { return kSize; }

 private:
  const std::string folder_ = UniqueName(::testing::TempDir() + "/snapsync");
};

class Qcow2Fixture final : public TargetFixture {
 public:
  explicit Qcow2Fixture(const Qcow2Options& options) : options_(options) {
    std::filesystem::create_directories(folder_);
    options_.replication = "contract";
  }
  ~Qcow2Fixture() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<Target> Make() override {
    return MakeQcow2Target(folder_ + "/volume.qcow2", options_);
  }
  std::unique_ptr<Target> MakeOther() override {
    return MakeQcow2Target(folder_ + "/other.qcow2", options_);
  }
  // Of a chain the newest.
  std::string path() const override {
    if (!options_.chain) return folder_ + "/volume.qcow2";
    for (int number = 9; number > 0; --number) {
      std::string path =
          folder_ + "/volume.g" + std::to_string(number) + ".qcow2";
      if (std::filesystem::exists(path)) return path;
    }
    return "";
  }
  uint64_t size() const override { return kSize; }

  Bytes Contents() const override {
    EXPECT_TRUE(IsCleanImage(path()));
    return ReadByQemu(path());
  }
  void WriteFromOutside(uint64_t offset, const Bytes& bytes) override {
    const TemporaryFolder temporary;
    WriteContents(temporary / "bytes",
                  {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    RunQemu({"qemu-io", "-f", "qcow2", "-c",
             "write -s " + (temporary / "bytes") + " " +
                 std::to_string(offset) + " " + std::to_string(bytes.size()),
             path()});
  }

 private:
  const std::string folder_ = UniqueName(::testing::TempDir() + "/snapsync");
  Qcow2Options options_;
};

// A file behind a loop device, for as long as it lives.
class LoopDevice {
 public:
  static std::unique_ptr<LoopDevice> Make(uint64_t size, std::string& why) {
    auto device = std::make_unique<LoopDevice>();
    device->file_ = UniqueName(::testing::TempDir() + "/snapsync-loop");
    const UniqueFd backing(
        ::open(device->file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (::ftruncate(backing.get(), static_cast<off_t>(size)) != 0) {
      why = "no file for a loop device";
      return nullptr;
    }
    const UniqueFd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
    const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) {
      why = std::string("no loop devices: ") + std::strerror(errno);
      return nullptr;
    }
    device->path_ = "/dev/loop" + std::to_string(number);
    device->fd_.Reset(::open(device->path_.c_str(), O_RDWR | O_CLOEXEC));
    if (!device->fd_.valid() ||
        ::ioctl(device->fd_.get(), LOOP_SET_FD, backing.get()) != 0) {
      why = device->path_ + ": " + std::strerror(errno);
      return nullptr;
    }
    device->attached_ = true;
    // The descriptor would make every open test see ourselves.
    device->fd_.Reset();
    return device;
  }
  ~LoopDevice() {
    if (attached_) {
      const UniqueFd fd(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
      ::ioctl(fd.get(), LOOP_CLR_FD, 0);
    }
    ::unlink(file_.c_str());
  }

  const std::string& path() const { return path_; }

 private:
  std::string file_;
  std::string path_;
  UniqueFd fd_;
  bool attached_ = false;
};

class BlockFixture final : public TargetFixture {
 public:
  BlockFixture(std::unique_ptr<LoopDevice> device,
               std::unique_ptr<LoopDevice> other)
      : device_(std::move(device)), other_(std::move(other)) {}

  std::unique_ptr<Target> Make() override { return MakeBlockTarget(path()); }
  std::unique_ptr<Target> MakeOther() override {
    return MakeBlockTarget(other_->path());
  }
  std::string path() const override { return device_->path(); }
  uint64_t size() const override { return kSize; }

 private:
  const std::unique_ptr<LoopDevice> device_;
  const std::unique_ptr<LoopDevice> other_;
};

class ThinFixture final : public TargetFixture {
 public:
  explicit ThinFixture(const std::string& group) : group_(group) {
    std::filesystem::create_directories(state_);
    MakeVolume("volume");
  }
  ~ThinFixture() override {
    Shell("lvremove -y -qq -f -S segtype=thin " + group_);
    std::filesystem::remove_all(state_);
  }

  std::unique_ptr<Target> Make() override {
    return MakeThinTarget(path(), state_);
  }
  std::unique_ptr<Target> MakeOther() override {
    if (!std::exchange(has_other_, true)) MakeVolume("other");
    return MakeThinTarget("/dev/" + group_ + "/other", state_);
  }
  std::string path() const override { return "/dev/" + group_ + "/volume"; }
  uint64_t size() const override { return kSize; }

 private:
  void MakeVolume(const std::string& name) {
    Shell("lvcreate -y -qq -V 4m -T " + group_ + "/pool -n " + name);
  }

  const std::string group_;
  bool has_other_ = false;
  const std::string state_ = UniqueName(::testing::TempDir() + "/state");
};

}  // namespace

void PrintTo(const FixtureKind& kind, std::ostream* out) { *out << kind.name; }

FixtureKind FileKind() {
  return {"File", [](std::string&) { return std::make_unique<FileFixture>(); }};
}

FixtureKind BlockKind() {
  return {"Block", [](std::string& why) -> std::unique_ptr<TargetFixture> {
            auto device = LoopDevice::Make(kSize, why);
            if (device == nullptr) return nullptr;
            auto other = LoopDevice::Make(kSize, why);
            if (other == nullptr) return nullptr;
            return std::make_unique<BlockFixture>(std::move(device),
                                                  std::move(other));
          }};
}

FixtureKind ThinKind() {
  return {"Thin", [](std::string& why) -> std::unique_ptr<TargetFixture> {
            const char* group = std::getenv("SNAPSYNC_TEST_GROUP");
            if (group == nullptr) {
              why = "needs LVM thin pools: tests/system/targets_test.sh";
              return nullptr;
            }
            return std::make_unique<ThinFixture>(group);
          }};
}

FixtureKind Qcow2Kind(const std::string& name, const Qcow2Options& options) {
  return {name, [options](std::string&) {
            return std::make_unique<Qcow2Fixture>(options);
          }};
}

Bytes ReadAll(const std::string& path) {
  if (!std::filesystem::exists(path)) return {};
  const auto reader = OpenFileReader(path);
  EXPECT_TRUE(reader.ok()) << reader.status();
  AlignedBuffer buffer((*reader)->size());
  const ReadOperation read{0, buffer.span()};
  const absl::Status status = (*reader)->Read({&read, 1});
  EXPECT_TRUE(status.ok()) << status;
  return Bytes(buffer.data(), buffer.data() + buffer.size());
}

Bytes TargetFixture::Contents() const { return ReadAll(path()); }

void TargetFixture::WriteFromOutside(uint64_t offset, const Bytes& bytes) {
  const UniqueFd fd(::open(path().c_str(), O_WRONLY | O_CLOEXEC));
  ASSERT_EQ(::pwrite(fd.get(), bytes.data(), bytes.size(),
                     static_cast<off_t>(offset)),
            static_cast<ssize_t>(bytes.size()));
  ASSERT_EQ(::fsync(fd.get()), 0);
}

Bytes Pattern(uint64_t size, uint32_t seed) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

OtherProcess::OtherProcess(const std::string& path) {
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
  EXPECT_EQ(byte, 'y') << path;
  ::close(ready[0]);
  ::close(ready[1]);
}

OtherProcess::~OtherProcess() {
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

std::string Shell(const std::string& command) {
  std::string output;
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  std::array<char, 4096> buffer{};
  while (std::fgets(buffer.data(), buffer.size(), pipe) != nullptr) {
    output += buffer.data();
  }
  EXPECT_EQ(::pclose(pipe), 0) << command << ": " << output;
  return output;
}

}  // namespace snapsync
