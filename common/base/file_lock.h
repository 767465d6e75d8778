// SPDX-License-Identifier: Apache-2.0
//
// An exclusive lock on a file, held as long as the object lives: one process
// at a time works with a state folder. The kernel releases it when the process
// dies, however it dies. It belongs to the open file, so a second Acquire() in
// the same process is refused as well.
//
// Movable. Acquire() is thread-safe.
#ifndef SNAPSYNC_COMMON_BASE_FILE_LOCK_H_
#define SNAPSYNC_COMMON_BASE_FILE_LOCK_H_

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"

namespace snapsync {

class FileLock {
 public:
  // Makes the file (0600) when it is missing, and never removes it: removing a
  // lock file lets two processes hold "the" lock. The file's text is the
  // holder's process id, for people. kBusy, with that id, when it is held.
  static absl::StatusOr<FileLock> Acquire(const std::string& path);

 private:
  explicit FileLock(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BASE_FILE_LOCK_H_
