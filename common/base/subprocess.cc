// SPDX-License-Identifier: Apache-2.0
#include "common/base/subprocess.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "common/base/error.h"
#include "common/base/spawn_settings.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"

namespace snapsync {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::array<std::string_view, 4> kFolders = {"/usr/sbin", "/sbin",
                                                      "/usr/bin", "/bin"};
// What LVM and libdevmapper need to be told where there is no udev, or where
// their configuration is not in /etc.
constexpr std::array<const char*, 3> kPassedVariables = {
    "LVM_SYSTEM_DIR", "DM_DISABLE_UDEV", "LVM_SUPPRESS_FD_WARNINGS"};
constexpr size_t kErrorOutputBytes = 16384;
constexpr size_t kErrorLines = 6;
constexpr auto kGrace = std::chrono::seconds(10);

absl::StatusOr<std::string> FindProgram(const std::string& name) {
  if (name.empty() || name.find('/') != std::string::npos) {
    if (!name.empty() && name.front() == '/' &&
        ::access(name.c_str(), X_OK) == 0) {
      return name;
    }
  } else {
    for (const std::string_view folder : kFolders) {
      std::string path = std::string(folder) + "/" + name;
      if (::access(path.c_str(), X_OK) == 0) return path;
    }
  }
  return Error(Reason::kConfiguration,
               "program " + name +
                   " is not installed (looked for in /usr/sbin, /sbin, "
                   "/usr/bin, /bin)");
}

std::vector<std::string> CleanEnvironment() {
  std::vector<std::string> environment = {"PATH=/usr/sbin:/sbin:/usr/bin:/bin",
                                          "LC_ALL=C"};
  for (const char* name : kPassedVariables) {
    if (const char* value = std::getenv(name); value != nullptr) {
      environment.push_back(std::string(name) + "=" + value);
    }
  }
  return environment;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (std::string& string : strings) pointers.push_back(string.data());
  pointers.push_back(nullptr);
  return pointers;
}

struct Pipe {
  UniqueFd read;
  UniqueFd write;
};

absl::StatusOr<Pipe> MakePipe() {
  std::array<int, 2> fds{};
  if (::pipe2(fds.data(), O_CLOEXEC) != 0) {
    return PosixError(errno, "can't make a pipe");
  }
  Pipe made{UniqueFd(fds[0]), UniqueFd(fds[1])};
  ::fcntl(made.read.get(), F_SETFL, O_NONBLOCK);
  return made;
}

// 0 or an errno.
int Spawn(const std::string& path, std::vector<std::string> argv, int out,
          int error, pid_t* pid) {
  SpawnSettings settings;
  // dup2 clears close-on-exec, and everything above 2 is closed: also what
  // other threads opened without that flag.
  ::posix_spawn_file_actions_addopen(&settings.actions, 0, "/dev/null",
                                     O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&settings.actions, out, 1);
  ::posix_spawn_file_actions_adddup2(&settings.actions, error, 2);
  ::posix_spawn_file_actions_addclosefrom_np(&settings.actions, 3);
  // A group of its own, to be killed as a whole, and out of the reach of a
  // Ctrl-C meant for us: an LVM command is short and better ends.
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
  std::vector<std::string> environment = CleanEnvironment();
  return ::posix_spawn(pid, path.c_str(), &settings.actions,
                       &settings.attributes, Pointers(argv).data(),
                       Pointers(environment).data());
}

// Appends what is there to `text`; closes the descriptor at the end.
void Drain(UniqueFd& fd, std::string& text) {
  std::array<char, 65536> buffer{};
  while (fd.valid()) {
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got > 0) {
      text.append(buffer.data(), static_cast<size_t>(got));
    } else if (got < 0 && errno == EINTR) {
      continue;
    } else if (got < 0 && errno == EAGAIN) {
      return;
    } else {
      fd.Reset();
    }
  }
}

std::string CommandLine(const std::vector<std::string>& argv) {
  std::string line;
  for (const std::string& word : argv) {
    if (!line.empty()) line += ' ';
    line += word;
  }
  return line;
}

// A child and its output, until it has ended.
class Child {
 public:
  Child(pid_t pid, UniqueFd pid_fd, UniqueFd out, UniqueFd error)
      : pid_(pid),
        pid_fd_(std::move(pid_fd)),
        out_(std::move(out)),
        error_(std::move(error)) {}

  // Waits for the end, taking the output. False when `deadline` passed.
  bool WaitUntil(Clock::time_point deadline, size_t output_limit,
                 SubprocessResult& result) {
    while (true) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
          deadline - Clock::now());
      if (left.count() <= 0) return false;
      std::array<pollfd, 3> events = {{{pid_fd_.get(), POLLIN, 0},
                                       {out_.get(), POLLIN, 0},
                                       {error_.get(), POLLIN, 0}}};
      if (::poll(events.data(), events.size(), static_cast<int>(left.count())) <
              0 &&
          errno != EINTR) {
        return false;
      }
      Drain(out_, result.output);
      Drain(error_, result.error_output);
      if (result.output.size() > output_limit) {
        overflowed_ = true;
        result.output.clear();
      }
      if (result.error_output.size() > kErrorOutputBytes) {
        result.error_output.erase(
            0, result.error_output.size() - kErrorOutputBytes);
      }
      // The end of the child, not of its output: a grandchild might hold that.
      if ((events[0].revents & POLLIN) != 0) {
        Drain(out_, result.output);
        Drain(error_, result.error_output);
        if (result.output.size() > output_limit) overflowed_ = true;
        return true;
      }
    }
  }

  void Signal(int signal) const { ::kill(-pid_, signal); }

  // Requires: it has ended, or is about to.
  int Reap() const {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }

  bool overflowed() const { return overflowed_; }

 private:
  const pid_t pid_;
  UniqueFd pid_fd_;
  UniqueFd out_;
  UniqueFd error_;
  bool overflowed_ = false;
};

}  // namespace

absl::StatusOr<SubprocessResult> RunSubprocess(
    const std::vector<std::string>& argv, const SubprocessLimits& limits) {
  if (argv.empty()) return Error(Reason::kOther, "no program to run");
  SubprocessResult result;
  result.command_line = CommandLine(argv);
  SNAPSYNC_ASSIGN_OR_RETURN(const std::string path, FindProgram(argv.front()));
  SNAPSYNC_ASSIGN_OR_RETURN(Pipe out, MakePipe());
  SNAPSYNC_ASSIGN_OR_RETURN(Pipe error, MakePipe());
  pid_t pid = 0;
  if (const int failure =
          Spawn(path, argv, out.write.get(), error.write.get(), &pid);
      failure != 0) {
    return PosixError(failure, path + " can't be run");
  }
  out.write.Reset();
  error.write.Reset();
  UniqueFd pid_fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  const int pid_fd_errno = errno;
  const bool watched = pid_fd.valid();
  Child child(pid, std::move(pid_fd), std::move(out.read),
              std::move(error.read));
  if (!watched) {
    child.Signal(SIGKILL);
    child.Reap();
    return PosixError(pid_fd_errno,
                      "`" + result.command_line + "` can't be waited for");
  }
  if (!child.WaitUntil(Clock::now() + limits.time, limits.output_bytes,
                       result)) {
    child.Signal(SIGTERM);
    if (!child.WaitUntil(Clock::now() + kGrace, limits.output_bytes, result)) {
      child.Signal(SIGKILL);
    }
    child.Reap();
    return Error(Reason::kConnection,
                 "`" + result.command_line + "` did not end within " +
                     std::to_string(limits.time.count() / 1000) +
                     " seconds and was stopped");
  }
  result.exit_status = child.Reap();
  if (child.overflowed()) {
    return Error(Reason::kIo,
                 "`" + result.command_line + "` printed more than " +
                     std::to_string(limits.output_bytes) + " bytes");
  }
  return result;
}

std::string DescribeFailure(const SubprocessResult& result) {
  std::string_view text = result.error_output;
  while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  size_t start = text.size();
  for (size_t lines = 0; lines < kErrorLines && start > 0; ++lines) {
    start = text.rfind('\n', start - 1);
    if (start == std::string_view::npos) start = 0;
  }
  std::string words(text.substr(start));
  for (char& letter : words) {
    if (letter == '\n') letter = ' ';
    if (static_cast<unsigned char>(letter) < 0x20) letter = '?';
  }
  const size_t first = words.find_first_not_of(' ');
  words.erase(0, std::min(first, words.size()));
  return "`" + result.command_line + "`: exit status " +
         std::to_string(result.exit_status) +
         (words.empty() ? std::string() : ": " + words);
}

}  // namespace snapsync
