// SPDX-License-Identifier: Apache-2.0
#include "common/block/file_version.h"

#include <algorithm>
#include <cstdint>
#include <ctime>

#include "absl/strings/str_cat.h"

namespace snapsync {
namespace {

// Time stamps move on with the kernel's ticks, of 10 ms at most; file systems
// that keep whole seconds are met by this, too.
constexpr int64_t kTickNanoseconds = 2'000'000'000;

int64_t Nanoseconds(const timespec& time) {
  return time.tv_sec * int64_t{1'000'000'000} + time.tv_nsec;
}

}  // namespace

std::string FileVersion(const struct stat& facts) {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  const int64_t modified = Nanoseconds(facts.st_mtim);
  const int64_t changed = Nanoseconds(facts.st_ctim);
  if (!S_ISREG(facts.st_mode) ||
      std::max(modified, changed) > Nanoseconds(now) - kTickNanoseconds) {
    return "";
  }
  return absl::StrCat(facts.st_dev, ":", facts.st_ino, ":", facts.st_size, ":",
                      modified, ":", changed);
}

std::string FileVersion(int fd) {
  struct stat facts {};
  return ::fstat(fd, &facts) == 0 ? FileVersion(facts) : "";
}

std::string FileVersion(const std::string& path) {
  struct stat facts {};
  return ::stat(path.c_str(), &facts) == 0 ? FileVersion(facts) : "";
}

}  // namespace snapsync
