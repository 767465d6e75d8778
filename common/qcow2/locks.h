// SPDX-License-Identifier: Apache-2.0
//
// The locks by which QEMU's programs keep out of each other's images, so that
// an image that a machine writes to is neither imported nor exported to, and
// none is started from an export that is being written. QEMU locks single
// bytes of the file (block/file-posix.c): byte 100 + p by who uses permission
// p, byte 200 + p by who does not let others have it.
//
// They are advisory: `qemu-img info -U` passes them, a program that does not
// know them does not see them. They end with the object, or with the process.
//
// One lock for an open file at a time: a second one on the same descriptor
// would end with the first. Errors: kBusy with who has the image open, as far
// as that can be seen; kIo where the file system has no locks. Movable; used by
// one thread at a time.
#ifndef SNAPSYNC_COMMON_QCOW2_LOCKS_H_
#define SNAPSYNC_COMMON_QCOW2_LOCKS_H_

#include <string>

#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"

namespace snapsync::qcow2 {

class ImageLock {
 public:
  // Others may read, nobody may write. `fd` is the image, open for reading;
  // the lock is on its open file, which it keeps open.
  static absl::StatusOr<ImageLock> ForReading(int fd, const std::string& name);
  // Nobody else may open it. `fd` is the image, open for reading at least.
  static absl::StatusOr<ImageLock> ForWriting(int fd, const std::string& name);

  ImageLock(ImageLock&&) = default;
  ImageLock& operator=(ImageLock&&) = delete;
  ~ImageLock();

 private:
  explicit ImageLock(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_LOCKS_H_
