// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/image_files.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/block/file_version.h"
#include "common/qcow2/header.h"

namespace snapsync::qcow2 {
namespace {

// Up to the last "/" and with it; empty: there is none.
std::string FolderOf(const std::string& path) {
  return path.substr(0, path.rfind('/') + 1);
}

// Like QEMU: a colon before any slash makes the name one of another kind.
bool HasProtocol(const std::string& name) {
  const size_t colon = name.find(':');
  return colon != std::string::npos && colon < name.find('/');
}

bool LeadsOut(const std::string& name) {
  return name.front() == '/' ||
         ("/" + name + "/").find("/../") != std::string::npos;
}

// Nothing but a place is opened: a device does not notice, a FIFO does not
// wait.
UniqueFd OpenPlace(int folder, const std::string& path, bool anywhere) {
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_NO_MAGICLINKS;
  if (!anywhere) how.resolve |= RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  return UniqueFd(static_cast<int>(
      ::syscall(SYS_openat2, folder, path.c_str(), &how, sizeof how)));
}

}  // namespace

absl::StatusOr<NumberedFile> ImageFiles::OpenImage() {
  const std::string folder = FolderOf(path_);
  root_.Reset(::open(folder.empty() ? "." : folder.c_str(),
                     O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root_.valid()) {
    return PosixError(errno, path_ + ": its folder can't be opened");
  }
  UniqueFd place = OpenPlace(root_.get(), path_.substr(folder.size()),
                             policy_.allow_anywhere);
  if (!place.valid()) {
    if (errno == ELOOP) {
      return Error(Reason::kPermission,
                   path_ +
                       ": a symbolic link: name the file itself, or allow "
                       "files anywhere");
    }
    return PosixError(errno, path_ + ": can't be opened");
  }
  return Add(std::move(place), path_, "");
}

absl::StatusOr<NumberedFile> ImageFiles::OpenNamed(Role role, uint32_t by,
                                                   const std::string& name) {
  if (by >= files_.size() || name.empty() ||
      name.find('\0') != std::string::npos) {
    return Error(Reason::kIo, path_ + ": a file without a name was asked for");
  }
  const std::string shown =
      files_[by]->name() + ": its " +
      (role == Role::kData ? "external data file " : "backing file ") +
      Printable(name);
  if (role == Role::kData && !policy_.allow_data_file) {
    return Error(Reason::kPermission,
                 shown +
                     " is not read: allow external data files, or convert "
                     "it with `qemu-img convert -O qcow2` first");
  }
  if (HasProtocol(name)) {
    return Error(Reason::kPermission,
                 shown +
                     " is named with a protocol, which is not supported: "
                     "record a plain name with `qemu-img rebase -u`");
  }
  if (!policy_.allow_anywhere && LeadsOut(name)) {
    return Error(Reason::kPermission,
                 shown +
                     " is not below the image's folder: allow files "
                     "anywhere, or record a relative name with `qemu-img "
                     "rebase -u`");
  }
  if (files_.size() == 2 * kMaxChainFiles) {
    return Error(Reason::kTargetUnsuitable, shown + " is one file too many");
  }
  const std::string path = name.front() == '/' ? name : folders_[by] + name;
  UniqueFd place = OpenPlace(root_.get(), path, policy_.allow_anywhere);
  if (!place.valid()) {
    if (errno == ELOOP || errno == EXDEV) {
      return Error(Reason::kPermission,
                   shown +
                       " is reached over a symbolic link or lies outside "
                       "of the image's folder: allow files anywhere");
    }
    return PosixError(errno, shown + " can't be opened");
  }
  return Add(std::move(place), FolderOf(path_) + Printable(path),
             FolderOf(path));
}

absl::StatusOr<NumberedFile> ImageFiles::Add(UniqueFd place,
                                             const std::string& name,
                                             std::string folder) {
  struct stat facts {};
  if (::fstat(place.get(), &facts) != 0) {
    return PosixError(errno, name + ": can't be examined");
  }
  if (S_ISBLK(facts.st_mode) && !policy_.allow_devices) {
    return Error(Reason::kPermission,
                 name + ": a block device: allow devices to read it");
  }
  if (!S_ISBLK(facts.st_mode) && !S_ISREG(facts.st_mode)) {
    return Error(Reason::kPermission,
                 name + ": neither a regular file nor a block device");
  }
  if (!seen_.emplace(facts.st_dev, facts.st_ino).second) {
    return Error(Reason::kIo,
                 name + ": damaged: the image's chain comes back to this file");
  }
  // The place itself, whatever its name leads to by now.
  const std::string again = "/proc/self/fd/" + std::to_string(place.get());
  UniqueFd fd(::open(again.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return PosixError(errno, name + ": can't be opened");
  if (!policy_.ignore_locks) {
    SNAPSYNC_ASSIGN_OR_RETURN(ImageLock lock,
                              ImageLock::ForReading(fd.get(), name));
    locks_.push_back(std::move(lock));
  }
  SNAPSYNC_ASSIGN_OR_RETURN(std::shared_ptr<const HostFile> file,
                            HostFile::Make(std::move(fd), name));
  files_.push_back(file);
  folders_.push_back(std::move(folder));
  return NumberedFile{std::move(file),
                      static_cast<uint32_t>(files_.size() - 1)};
}

std::string ImageFiles::Versions() const {
  std::string all;
  for (const std::shared_ptr<const HostFile>& file : files_) {
    const std::string one = FileVersion(file->fd());
    if (one.empty()) return "";
    all += (all.empty() ? "" : " ") + one;
  }
  return all;
}

}  // namespace snapsync::qcow2
