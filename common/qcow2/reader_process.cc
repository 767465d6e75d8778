// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/reader_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <thread>
#include <utility>

#include "common/base/error.h"
#include "common/base/spawn_settings.h"
#include "common/base/status_macros.h"
#include "common/qcow2/reader_protocol.h"
#include "common/qcow2/sandbox.h"

namespace snapsync::qcow2 {
namespace {

// Descriptors are moved up here first, so that none is in the way of those that
// the process expects.
constexpr int kHighFd = 64;
constexpr auto kEndPatience = std::chrono::seconds(1);
constexpr auto kEndStep = std::chrono::milliseconds(1);

size_t MemoryBytes(size_t channels) {
  return channels * kSlotsPerChannel * kSlotBytes;
}

// Memory that the process can't take away from us by making it shorter.
absl::StatusOr<UniqueFd> MakeMemory(size_t bytes) {
  UniqueFd fd(
      ::memfd_create("snapsync-qcow2", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid() || ::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0 ||
      ::fcntl(fd.get(), F_ADD_SEALS,
              F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return PosixError(errno, "can't make shared memory");
  }
  return fd;
}

// `fds` become kControlFd and those that follow. 0 or an errno.
int Spawn(const std::string& program, std::span<const UniqueFd> fds,
          pid_t* pid) {
  SpawnSettings settings;
  // Nothing that it could say on stderr is for an operator's eyes; a
  // sanitizer's report is for ours.
  for (int fd = 0; fd < (kSanitized ? 2 : 3); ++fd) {
    ::posix_spawn_file_actions_addopen(&settings.actions, fd, "/dev/null",
                                       O_RDWR, 0);
  }
  int next = kControlFd;
  for (const UniqueFd& fd : fds) {
    ::posix_spawn_file_actions_adddup2(&settings.actions, fd.get(), next++);
  }
  ::posix_spawn_file_actions_addclosefrom_np(&settings.actions, next);
  // Out of the reach of a Ctrl-C meant for us: we end it ourselves.
  ::posix_spawnattr_setpgroup(&settings.attributes, 0);
  sigset_t none;
  sigset_t all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&settings.attributes, &none);
  ::posix_spawnattr_setsigdefault(&settings.attributes, &all);
  ::posix_spawnattr_setflags(&settings.attributes, POSIX_SPAWN_SETPGROUP |
                                                       POSIX_SPAWN_SETSIGMASK |
                                                       POSIX_SPAWN_SETSIGDEF);
  std::string name = program;
  std::array<char*, 2> arguments = {name.data(), nullptr};
  // No environment: nothing of ours is its business.
  std::array<char*, 1> environment = {nullptr};
  return ::posix_spawn(pid, program.c_str(), &settings.actions,
                       &settings.attributes, arguments.data(),
                       environment.data());
}

}  // namespace

absl::StatusOr<std::string> FindReaderProgram() {
  std::array<char, PATH_MAX> self{};
  const ssize_t length =
      ::readlink("/proc/self/exe", self.data(), self.size() - 1);
  if (length <= 0) return PosixError(errno, "/proc/self/exe can't be read");
  std::string path(self.data(), static_cast<size_t>(length));
  path = path.substr(0, path.rfind('/') + 1) + kReaderProgram;
  if (::access(path.c_str(), X_OK) != 0) {
    return Error(Reason::kConfiguration,
                 path +
                     " is missing: it belongs beside this program; install "
                     "SnapSync again");
  }
  return path;
}

ReaderProcess::ReaderProcess(std::string image, PacketSocket control,
                             std::vector<PacketSocket> channels,
                             std::chrono::milliseconds patience)
    : image_(std::move(image)),
      control_(std::move(control)),
      channels_(std::move(channels)),
      patience_(patience) {}

absl::StatusOr<std::unique_ptr<ReaderProcess>> ReaderProcess::Start(
    const std::string& program, const std::string& image, size_t channels,
    std::chrono::milliseconds patience) {
  std::vector<UniqueFd> fds;
  const auto add = [&](int fd) {
    fds.emplace_back(::fcntl(fd, F_DUPFD_CLOEXEC, kHighFd));
    return fds.back().valid();
  };
  SNAPSYNC_ASSIGN_OR_RETURN(auto control, PacketSocket::MakePair());
  SNAPSYNC_ASSIGN_OR_RETURN(const UniqueFd memory,
                            MakeMemory(MemoryBytes(channels)));
  bool complete = add(control.second.fd()) && add(memory.get());
  std::vector<PacketSocket> ours;
  for (size_t index = 0; index < channels; ++index) {
    SNAPSYNC_ASSIGN_OR_RETURN(auto channel, PacketSocket::MakePair());
    complete = complete && add(channel.second.fd());
    ours.push_back(std::move(channel.first));
  }
  if (!complete) {
    return PosixError(errno, "can't start the reader of " + image);
  }
  std::unique_ptr<ReaderProcess> process(new ReaderProcess(
      image, std::move(control.first), std::move(ours), patience));
  void* mapped = ::mmap(nullptr, MemoryBytes(channels), PROT_READ, MAP_SHARED,
                        memory.get(), 0);
  if (mapped == MAP_FAILED) {
    return PosixError(errno, "can't map the memory for reading " + image);
  }
  process->memory_ = {static_cast<std::byte*>(mapped), MemoryBytes(channels)};
  MutexLock lock(&process->mutex_);
  if (const int error = Spawn(program, fds, &process->pid_); error != 0) {
    process->pid_ = 0;
    return PosixError(error, program + " can't be started",
                      Reason::kConfiguration);
  }
  return process;
}

ReaderProcess::~ReaderProcess() {
  if (!memory_.empty()) ::munmap(memory_.data(), memory_.size());
  MutexLock lock(&mutex_);
  if (pid_ == 0) return;
  ::kill(pid_, SIGKILL);
  // It ends at once, unless a disk does not answer: then nobody waits for it.
  const auto end = std::chrono::steady_clock::now() + kEndPatience;
  while (::waitpid(pid_, nullptr, WNOHANG) == 0 &&
         std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(kEndStep);
  }
}

std::span<const std::byte> ReaderProcess::Slot(size_t channel,
                                               size_t slot) const {
  return std::span<const std::byte>(memory_).subspan(
      (channel * kSlotsPerChannel + slot) * kSlotBytes, kSlotBytes);
}

absl::Status ReaderProcess::Send(const PacketSocket& socket,
                                 const Packer& packer, int descriptor) {
  return Explain(socket.Send(packer, descriptor));
}

absl::StatusOr<std::vector<std::byte>> ReaderProcess::Receive(
    const PacketSocket& socket) {
  auto packet = socket.Receive(patience_);
  if (!packet.ok()) return Explain(packet.status());
  return std::move(packet->bytes);
}

absl::Status ReaderProcess::Nonsense() const {
  return Error(Reason::kOther, "the reader of " + image_ +
                                   " answered with nonsense: the image may "
                                   "be made to break it; do not use it");
}

absl::Status ReaderProcess::Explain(const absl::Status& status) {
  if (status.ok()) return status;
  const std::string reader = "the reader of " + image_;
  if (ReasonOf(status) != Reason::kConnection) return Annotate(status, reader);
  // Not kConnection: what died is not there when it is tried again.
  if (MessageOf(status) == "gone") {
    return Error(Reason::kOther, reader + " " + DescribeEnd());
  }
  return Error(Reason::kOther, reader + ": " + std::string(MessageOf(status)));
}

std::string ReaderProcess::DescribeEnd() {
  MutexLock lock(&mutex_);
  // Its sockets are closed a moment before it can be waited for.
  const auto end = std::chrono::steady_clock::now() + kEndPatience;
  while (pid_ != 0 && !wait_status_) {
    int status = 0;
    const pid_t waited = ::waitpid(pid_, &status, WNOHANG);
    if (waited == pid_) {
      wait_status_ = status;
      pid_ = 0;
    } else if (waited < 0 || std::chrono::steady_clock::now() > end) {
      break;
    } else {
      std::this_thread::sleep_for(kEndStep);
    }
  }
  if (!wait_status_) return "is gone";
  if (WIFSIGNALED(*wait_status_)) {
    const int signal = WTERMSIG(*wait_status_);
    return "was killed by signal " + std::to_string(signal) + " (" +
           ::strsignal(signal) +
           "): the image may be made to break it; do not use it";
  }
  if (WEXITSTATUS(*wait_status_) == kOutOfMemoryStatus) {
    return "needs more than its 512 MiB of memory: convert the image with "
           "`qemu-img convert -O qcow2` first";
  }
  return "ended with status " + std::to_string(WEXITSTATUS(*wait_status_));
}

}  // namespace snapsync::qcow2
