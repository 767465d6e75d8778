// SPDX-License-Identifier: Apache-2.0
#include "common/block/host_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"
#include "common/block/uring_pool.h"

namespace snapsync {
namespace {

std::string At(const std::string& name, uint64_t offset, size_t length) {
  return name + ": " + std::to_string(length) + " bytes at offset " +
         std::to_string(offset);
}

class RegularFile final : public GrowingFile {
 public:
  // `cached` is open for `flags`.
  RegularFile(std::string name, UniqueFd cached, int flags)
      : name_(std::move(name)), cached_(std::move(cached)) {
    const std::string same = "/proc/self/fd/" + std::to_string(cached_.get());
    direct_.Reset(::open(same.c_str(), flags | O_DIRECT | O_CLOEXEC));
  }

  const std::string& name() const override { return name_; }
  int descriptor() const override { return cached_.get(); }

  absl::StatusOr<uint64_t> Size() override {
    struct stat facts {};
    if (::fstat(cached_.get(), &facts) != 0) {
      return PosixError(errno, name_ + ": can't be examined");
    }
    return static_cast<uint64_t>(facts.st_size);
  }

  absl::Status Read(std::span<const ReadOperation> operations) override {
    std::vector<Uring::Operation> batch;
    batch.reserve(operations.size());
    for (const ReadOperation& operation : operations) {
      batch.push_back(
          {operation.offset, operation.data.data(), operation.data.size()});
    }
    return rings_.Run(Uring::Direction::kRead, direct(), name_, batch);
  }

  absl::Status Write(std::span<const WriteOperation> operations) override {
    std::vector<Uring::Operation> batch;
    batch.reserve(operations.size());
    for (const WriteOperation& operation : operations) {
      // The ring only reads from it: Direction::kWrite.
      batch.push_back({operation.offset,
                       const_cast<std::byte*>(operation.data.data()),
                       operation.data.size()});
    }
    return rings_.Run(Uring::Direction::kWrite, direct(), name_, batch);
  }

  absl::Status ReadCached(uint64_t offset, std::span<std::byte> data) override {
    for (size_t done = 0; done < data.size();) {
      const ssize_t got =
          ::pread(cached_.get(), data.data() + done, data.size() - done,
                  static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) {
        return PosixError(got < 0 ? errno : ENODATA,
                          At(name_, offset, data.size()) + " can't be read");
      }
      done += static_cast<size_t>(got);
    }
    return absl::OkStatus();
  }

  absl::Status WriteCached(uint64_t offset,
                           std::span<const std::byte> data) override {
    for (size_t done = 0; done < data.size();) {
      const ssize_t put =
          ::pwrite(cached_.get(), data.data() + done, data.size() - done,
                   static_cast<off_t>(offset + done));
      if (put < 0 && errno == EINTR) continue;
      if (put <= 0) {
        return WriteError(put < 0 ? errno : ENOSPC,
                          At(name_, offset, data.size()) + " can't be written");
      }
      done += static_cast<size_t>(put);
    }
    return absl::OkStatus();
  }

  absl::Status Resize(uint64_t size) override {
    if (::ftruncate(cached_.get(), static_cast<off_t>(size)) == 0) {
      return absl::OkStatus();
    }
    return WriteError(
        errno, name_ + ": can't have " + std::to_string(size) + " bytes");
  }

  absl::Status Punch(Extent extent) override {
    if (extent.length == 0) return absl::OkStatus();
    // Most of what is given back again is a hole already.
    const off_t data =
        ::lseek(cached_.get(), static_cast<off_t>(extent.offset), SEEK_DATA);
    if (data < 0 ? errno == ENXIO
                 : static_cast<uint64_t>(data) >= extent.end()) {
      return absl::OkStatus();
    }
    if (::fallocate(cached_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                    static_cast<off_t>(extent.offset),
                    static_cast<off_t>(extent.length)) == 0 ||
        errno == EOPNOTSUPP) {
      return absl::OkStatus();
    }
    return PosixError(errno, At(name_, extent.offset, extent.length) +
                                 " can't be given back");
  }

  absl::Status Flush() override {
    if (::fdatasync(cached_.get()) == 0) return absl::OkStatus();
    return WriteError(errno, name_ + ": flush failed");
  }

  absl::Status TakeOwnerOf(const GrowingFile& other) override {
    struct stat facts {};
    if (::fstat(other.descriptor(), &facts) != 0 ||
        ::fchown(cached_.get(), facts.st_uid, facts.st_gid) != 0 ||
        ::fchmod(cached_.get(), facts.st_mode & 07777U) != 0 ||
        ::fsync(cached_.get()) != 0) {
      return PosixError(
          errno, name_ + ": can't have the owner and mode of " + other.name());
    }
    return absl::OkStatus();
  }

 private:
  // Not every file system knows O_DIRECT.
  int direct() const { return direct_.valid() ? direct_.get() : cached_.get(); }

  const std::string name_;
  const UniqueFd cached_;
  UniqueFd direct_;
  UringPool rings_;
};

class RealFolder final : public HostFolder {
 public:
  RealFolder(std::string path, UniqueFd fd)
      : path_(std::move(path)), fd_(std::move(fd)) {}

  const std::string& path() const override { return path_; }

  absl::StatusOr<std::vector<std::string>> Names() override {
    const int again =
        ::openat(fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR* folder = again < 0 ? nullptr : ::fdopendir(again);
    if (folder == nullptr) {
      return PosixError(errno, "folder " + path_ + " can't be read");
    }
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = ::readdir(folder))
      names.push_back(entry->d_name);
    const int error_number = errno;
    ::closedir(folder);
    if (error_number != 0) {
      return PosixError(error_number, "folder " + path_ + " can't be read");
    }
    return names;
  }

  absl::StatusOr<std::unique_ptr<GrowingFile>> Open(const std::string& name,
                                                    Access access) override {
    // Looked at first: opening a device or a pipe may do something.
    struct stat facts {};
    if (::fstatat(fd_.get(), name.c_str(), &facts, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT) return nullptr;
      return PosixError(errno, path_ + name + ": can't be examined");
    }
    const int flags = access == Access::kWrite ? O_RDWR : O_RDONLY;
    UniqueFd fd;
    if (S_ISREG(facts.st_mode)) {
      fd.Reset(::openat(fd_.get(), name.c_str(),
                        flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
      if (!fd.valid()) {
        return PosixError(errno, path_ + name + " can't be opened");
      }
      if (::fstat(fd.get(), &facts) != 0) {
        return PosixError(errno, path_ + name + ": can't be examined");
      }
    }
    if (!fd.valid() || !S_ISREG(facts.st_mode)) {
      return Error(Reason::kTargetUnsuitable,
                   path_ + name +
                       (S_ISLNK(facts.st_mode)
                            ? " is a symbolic link; name the file itself"
                            : " is no regular file"));
    }
    if (facts.st_nlink != 1) {
      return Error(Reason::kTargetUnsuitable,
                   path_ + name + " has " + std::to_string(facts.st_nlink) +
                       " names (hard links); remove the others, or choose "
                       "another name");
    }
    return std::make_unique<RegularFile>(path_ + name, std::move(fd), flags);
  }

  absl::StatusOr<std::unique_ptr<GrowingFile>> Create(
      const std::string& name) override {
    constexpr int kFlags = O_RDWR;
    UniqueFd fd(::openat(fd_.get(), name.c_str(),
                         kFlags | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                         0600));
    if (!fd.valid()) {
      return PosixError(errno, path_ + name + " can't be made",
                        Reason::kTargetUnsuitable);
    }
    return std::make_unique<RegularFile>(path_ + name, std::move(fd), kFlags);
  }

  absl::Status Rename(const std::string& from, const std::string& to,
                      IfThere if_there) override {
    const unsigned flags =
        if_there == IfThere::kRefuse ? unsigned{RENAME_NOREPLACE} : 0U;
    if (::renameat2(fd_.get(), from.c_str(), fd_.get(), to.c_str(), flags) ==
        0) {
      return absl::OkStatus();
    }
    // Not every file system knows the flag.
    if (flags != 0 && errno == EINVAL) {
      return RenameWhereThereIsNone(from, to);
    }
    return PosixError(
        errno, path_ + from + " can't be renamed to " + to,
        errno == EEXIST ? Reason::kTargetUnsuitable : Reason::kIo);
  }

  absl::Status Remove(const std::string& name) override {
    if (::unlinkat(fd_.get(), name.c_str(), 0) == 0 || errno == ENOENT) {
      return absl::OkStatus();
    }
    return PosixError(errno, path_ + name + " can't be removed");
  }

  absl::Status Flush() override {
    if (::fsync(fd_.get()) == 0) return absl::OkStatus();
    return PosixError(errno, "folder " + path_ + " can't be flushed");
  }

 private:
  absl::Status RenameWhereThereIsNone(const std::string& from,
                                      const std::string& to) {
    struct stat facts {};
    if (::fstatat(fd_.get(), to.c_str(), &facts, AT_SYMLINK_NOFOLLOW) == 0) {
      return PosixError(EEXIST, path_ + from + " can't be renamed to " + to,
                        Reason::kTargetUnsuitable);
    }
    return Rename(from, to, IfThere::kReplace);
  }

  const std::string path_;
  const UniqueFd fd_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HostFolder>> OpenHostFolder(
    const std::string& path) {
  UniqueFd fd(::open(path.empty() ? "." : path.c_str(),
                     O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) {
    return PosixError(errno, "folder " + path + " can't be opened",
                      Reason::kTargetUnsuitable);
  }
  const bool whole = path.empty() || path.back() == '/';
  return std::make_unique<RealFolder>(whole ? path : path + "/", std::move(fd));
}

}  // namespace snapsync
