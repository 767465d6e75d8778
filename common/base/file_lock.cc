// SPDX-License-Identifier: Apache-2.0
#include "common/base/file_lock.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cctype>
#include <cerrno>

#include "common/base/error.h"

namespace snapsync {
namespace {

std::string Holder(int fd) {
  std::array<char, 16> text{};
  const ssize_t got = ::pread(fd, text.data(), text.size(), 0);
  std::string digits;
  for (ssize_t i = 0; i < got; ++i) {
    const char letter = text[static_cast<size_t>(i)];
    if (std::isdigit(static_cast<unsigned char>(letter)) == 0) break;
    digits += letter;
  }
  return digits.empty() ? "another process" : "process " + digits;
}

}  // namespace

absl::StatusOr<FileLock> FileLock::Acquire(const std::string& path) {
  UniqueFd fd(
      ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.valid()) return PosixError(errno, path + ": can't be opened");
  struct flock whole_file {};
  whole_file.l_type = F_WRLCK;
  whole_file.l_whence = SEEK_SET;
  if (::fcntl(fd.get(), F_OFD_SETLK, &whole_file) != 0) {
    if (errno == EAGAIN || errno == EACCES) {
      return Error(Reason::kBusy, path + " is locked by " + Holder(fd.get()) +
                                      "; try again when it has ended");
    }
    return PosixError(errno, path + ": can't be locked");
  }
  // Only for people: a failure changes nothing.
  const std::string text = std::to_string(::getpid()) + "\n";
  if (::ftruncate(fd.get(), 0) == 0) {
    [[maybe_unused]] const ssize_t written =
        ::pwrite(fd.get(), text.data(), text.size(), 0);
  }
  return FileLock(std::move(fd));
}

}  // namespace snapsync
