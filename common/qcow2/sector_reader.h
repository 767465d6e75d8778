// SPDX-License-Identifier: Apache-2.0
//
// Reads the plain data of an image's files into the buffers of a reader: what
// was found in many places becomes one batch, in which neighbours are one read.
// What is in the page cache is copied from there, all else is read past it: a
// large image does not push everything else out.
//
// Thread-safe after construction. Errors are kIo and name the file.
#ifndef SNAPSYNC_COMMON_QCOW2_SECTOR_READER_H_
#define SNAPSYNC_COMMON_QCOW2_SECTOR_READER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/block/block_device.h"
#include "common/qcow2/host_file.h"

namespace snapsync::qcow2 {

class SectorReader {
 public:
  // `files` by their numbers.
  static absl::StatusOr<std::unique_ptr<SectorReader>> Make(
      std::vector<std::shared_ptr<const HostFile>> files);

  struct Part {
    uint32_t file = 0;
    ReadOperation read;  // of the file; a last sector is filled with zeroes
  };
  // Requires: numbers of files, offsets and lengths of multiples of 512 within
  // the file's last sector.
  absl::Status Read(std::span<const Part> parts);

  // The bytes of a file, up to a whole sector.
  uint64_t SectorBytes(uint32_t file) const;
  size_t file_count() const { return files_.size(); }

 private:
  struct File {
    std::shared_ptr<const HostFile> host;
    std::unique_ptr<BlockReader> direct;
  };

  explicit SectorReader(std::vector<File> files) : files_(std::move(files)) {}
  absl::Status ReadFrom(const File& file,
                        std::span<const ReadOperation> operations);

  const std::vector<File> files_;
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_SECTOR_READER_H_
