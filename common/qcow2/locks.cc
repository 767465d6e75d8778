// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/locks.h"

#include <fcntl.h>

#include <cerrno>
#include <span>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/block/device_holders.h"

namespace snapsync::qcow2 {
namespace {

constexpr off_t kUseBase = 100;
constexpr off_t kForbidBase = 200;
constexpr off_t kLastByte = 299;

// Permissions.
constexpr off_t kConsistentRead = 0;
constexpr off_t kWrite = 1;
constexpr off_t kResize = 3;
constexpr off_t kReaderUses[] = {kConsistentRead};
constexpr off_t kWriterUses[] = {kWrite, kResize};
// Of others, whoever we are.
constexpr off_t kForbidden[] = {kWrite, kResize};

struct flock ByteLock(short type, off_t byte) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return lock;
}

absl::Status Hold(int fd, off_t byte, const std::string& name) {
  struct flock lock = ByteLock(F_RDLCK, byte);
  if (::fcntl(fd, F_OFD_SETLK, &lock) == 0) return absl::OkStatus();
  return PosixError(errno, name + ": can't be locked against other programs");
}

// Whether anybody else holds a lock on the byte.
absl::StatusOr<bool> IsHeld(int fd, off_t byte, const std::string& name) {
  struct flock lock = ByteLock(F_WRLCK, byte);
  if (::fcntl(fd, F_OFD_GETLK, &lock) != 0) {
    return PosixError(errno, name + ": its locks can't be examined");
  }
  return lock.l_type != F_UNLCK;
}

// First hold, then look: of two that come at the same time, one sees the other
// at least.
absl::Status Take(int fd, std::span<const off_t> uses,
                  const std::string& name) {
  for (const off_t use : uses) {
    SNAPSYNC_RETURN_IF_ERROR(Hold(fd, kUseBase + use, name));
  }
  for (const off_t forbidden : kForbidden) {
    SNAPSYNC_RETURN_IF_ERROR(Hold(fd, kForbidBase + forbidden, name));
  }
  bool held = false;
  for (const off_t use : uses) {
    SNAPSYNC_ASSIGN_OR_RETURN(const bool forbidden,
                              IsHeld(fd, kForbidBase + use, name));
    held = held || forbidden;
  }
  for (const off_t forbidden : kForbidden) {
    SNAPSYNC_ASSIGN_OR_RETURN(const bool used,
                              IsHeld(fd, kUseBase + forbidden, name));
    held = held || used;
  }
  if (!held) return absl::OkStatus();
  const auto holders = DescribeHolders("/proc/self/fd/" + std::to_string(fd));
  return Error(Reason::kBusy,
               name + ": in use by another program" +
                   (holders.ok() && !holders->empty() ? " (" + *holders + ")"
                                                      : std::string()) +
                   ": stop the virtual machine that has it open, or take a "
                   "snapshot of the image");
}

absl::StatusOr<UniqueFd> Duplicate(int fd, const std::string& name) {
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) return PosixError(errno, name + ": can't be locked");
  return copy;
}

}  // namespace

absl::StatusOr<ImageLock> ImageLock::ForReading(int fd,
                                                const std::string& name) {
  SNAPSYNC_ASSIGN_OR_RETURN(UniqueFd copy, Duplicate(fd, name));
  ImageLock lock(std::move(copy));
  SNAPSYNC_RETURN_IF_ERROR(Take(fd, kReaderUses, name));
  return lock;
}

absl::StatusOr<ImageLock> ImageLock::ForWriting(int fd,
                                                const std::string& name) {
  SNAPSYNC_ASSIGN_OR_RETURN(UniqueFd copy, Duplicate(fd, name));
  ImageLock lock(std::move(copy));
  SNAPSYNC_RETURN_IF_ERROR(Take(fd, kWriterUses, name));
  return lock;
}

ImageLock::~ImageLock() {
  if (!fd_.valid()) return;
  struct flock all = ByteLock(F_UNLCK, kUseBase);
  all.l_len = kLastByte - kUseBase + 1;
  ::fcntl(fd_.get(), F_OFD_SETLK, &all);
}

}  // namespace snapsync::qcow2
