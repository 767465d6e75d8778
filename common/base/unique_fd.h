// SPDX-License-Identifier: Apache-2.0
//
// Owns a file descriptor and closes it. Movable, not copyable. Used by one
// thread at a time. Errors of close() are not reported: whatever must be
// durable was flushed before.
#ifndef SNAPSYNC_COMMON_BASE_UNIQUE_FD_H_
#define SNAPSYNC_COMMON_BASE_UNIQUE_FD_H_

#include <unistd.h>

#include <utility>

namespace snapsync {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) Reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~UniqueFd() { Reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  void Reset(int fd = -1) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
  }

 private:
  int fd_ = -1;
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BASE_UNIQUE_FD_H_
