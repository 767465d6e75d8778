// SPDX-License-Identifier: Apache-2.0
//
// A file that an image consists of (the image, a backing file, a data file),
// open for reading, and read with pread: for tables and compressed clusters.
// Whole clusters of data are read by other means (sector_reader.h).
//
// Offsets and sizes in bytes. The size is that of the moment of opening: what
// is beyond it does not exist, even if the file grows. Thread-safe. The
// descriptor is owned. Errors name the file and the offset, kIo.
#ifndef SNAPSYNC_COMMON_QCOW2_HOST_FILE_H_
#define SNAPSYNC_COMMON_QCOW2_HOST_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"

namespace snapsync::qcow2 {

class HostFile {
 public:
  // Takes an open regular file or block device. `name` is for errors.
  static absl::StatusOr<std::shared_ptr<const HostFile>> Make(
      UniqueFd fd, const std::string& name);

  // The same of a file whose size is known already.
  static std::shared_ptr<const HostFile> Make(UniqueFd fd,
                                              const std::string& name,
                                              uint64_t size);

  const std::string& name() const { return name_; }
  uint64_t size() const { return size_; }
  int fd() const { return fd_.get(); }

  // Whether [offset, offset + length) is in the file.
  bool Has(uint64_t offset, uint64_t length) const {
    return offset <= size_ && length <= size_ - offset;
  }

  // Whether all of it is in the page cache, as far as that can be known: then
  // copying it is faster than reading it from the disk.
  bool IsCached(uint64_t offset, uint64_t length) const;

  // Fills `out` with the bytes from `offset` on; zeroes where the file has
  // ended.
  absl::Status Read(uint64_t offset, std::span<std::byte> out) const;

 private:
  HostFile(UniqueFd fd, std::string name, uint64_t size)
      : fd_(std::move(fd)), name_(std::move(name)), size_(size) {}

  const UniqueFd fd_;
  const std::string name_;
  const uint64_t size_;
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_HOST_FILE_H_
