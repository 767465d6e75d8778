// SPDX-License-Identifier: Apache-2.0
#include "common/base/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"

namespace snapsync {
namespace {

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

absl::Status WriteAll(int fd, const std::string& path,
                      std::string_view contents) {
  while (!contents.empty()) {
    const ssize_t written = ::write(fd, contents.data(), contents.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return PosixError(errno, path + ": can't be written");
    }
    contents.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status SyncFolder(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0) {
    return PosixError(errno, path + ": the folder can't be flushed");
  }
  return absl::OkStatus();
}

absl::Status WriteFileAtomically(const std::string& path,
                                 std::string_view contents) {
  const std::string temporary = path + ".new";
  {
    const UniqueFd fd(::open(temporary.c_str(),
                             O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!fd.valid()) {
      return PosixError(errno, temporary + ": can't be created");
    }
    SNAPSYNC_RETURN_IF_ERROR(WriteAll(fd.get(), temporary, contents));
    if (::fsync(fd.get()) != 0) {
      return PosixError(errno, temporary + ": flush failed");
    }
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    return PosixError(errno, path + ": can't be replaced");
  }
  return SyncFolder(FolderOf(path));
}

absl::StatusOr<std::string> ReadWholeFile(const std::string& path,
                                          size_t limit) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) {
    if (errno == ENOENT) return absl::NotFoundError(path + " does not exist");
    return PosixError(errno, path + ": can't be opened");
  }
  std::string contents;
  char buffer[65536];
  for (;;) {
    const ssize_t got = ::read(fd.get(), buffer, sizeof buffer);
    if (got < 0) {
      if (errno == EINTR) continue;
      return PosixError(errno, path + ": can't be read");
    }
    if (got == 0) return contents;
    contents.append(buffer, static_cast<size_t>(got));
    if (contents.size() > limit) {
      return Error(Reason::kIo,
                   path + ": larger than " + std::to_string(limit) + " bytes");
    }
  }
}

absl::Status RemoveFile(const std::string& path) {
  if (::unlink(path.c_str()) != 0) {
    if (errno == ENOENT) return absl::OkStatus();
    return PosixError(errno, path + ": can't be removed");
  }
  return SyncFolder(FolderOf(path));
}

absl::Status MakeFolder(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) == 0) return SyncFolder(FolderOf(path));
  if (errno == ENOENT && path != FolderOf(path)) {
    SNAPSYNC_RETURN_IF_ERROR(MakeFolder(FolderOf(path)));
    return MakeFolder(path);
  }
  struct stat facts {};
  if (errno == EEXIST && ::stat(path.c_str(), &facts) == 0 &&
      S_ISDIR(facts.st_mode)) {
    return absl::OkStatus();
  }
  return PosixError(errno, path + ": the folder can't be made");
}

}  // namespace snapsync
