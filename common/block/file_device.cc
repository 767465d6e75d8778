// SPDX-License-Identifier: Apache-2.0
#include "common/block/file_device.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>
#include <vector>

#include "common/base/aligned_buffer.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"
#include "common/base/units.h"
#include "common/block/uring.h"
#include "common/block/uring_pool.h"
#include "common/block/zeroes.h"

namespace snapsync {
namespace {

// The unit in which a range is read to see whether it is zero already.
constexpr uint64_t kLookBytes = 256 * kKiB;
// At least what O_DIRECT wants as the alignment of memory and offset.
constexpr uint64_t kPageBytes = 4 * kKiB;

std::string At(const std::string& name, Extent extent) {
  return name + ": " + std::to_string(extent.length) + " bytes at offset " +
         std::to_string(extent.offset);
}

// An open device or file and its rings: what reader and writer share.
class OpenFile {
 public:
  static absl::StatusOr<std::unique_ptr<OpenFile>> Open(const std::string& path,
                                                        int flags) {
    auto file = std::make_unique<OpenFile>();
    file->name = path;
    file->fd.Reset(::open(path.c_str(), flags | O_CLOEXEC | O_DIRECT));
    if (!file->fd.valid() && errno == EINVAL) {
      file->fd.Reset(::open(path.c_str(), flags | O_CLOEXEC));
    }
    if (!file->fd.valid()) {
      return PosixError(errno, path + ": can't be opened");
    }
    struct stat facts {};
    if (::fstat(file->fd.get(), &facts) != 0) {
      return PosixError(errno, path + ": can't be examined");
    }
    file->is_block_device = S_ISBLK(facts.st_mode);
    if (file->is_block_device) {
      if (::ioctl(file->fd.get(), BLKGETSIZE64, &file->size) != 0) {
        return PosixError(errno, path + ": the size can't be read");
      }
    } else if (S_ISREG(facts.st_mode)) {
      file->size = static_cast<uint64_t>(facts.st_size);
    } else {
      return Error(Reason::kTargetUnsuitable,
                   path + ": neither a block device nor a regular file");
    }
    return file;
  }

  absl::Status Run(Uring::Direction direction,
                   std::span<Uring::Operation> operations) {
    for (const Uring::Operation& operation : operations) {
      if (operation.offset > size ||
          operation.length > size - operation.offset) {
        return Error(Reason::kIo,
                     At(name, {operation.offset, operation.length}) +
                         " lie beyond the end (" + std::to_string(size) +
                         " bytes)");
      }
    }
    return rings.Run(direction, fd.get(), name, operations);
  }

  std::string name;
  UniqueFd fd;
  uint64_t size = 0;
  bool is_block_device = false;
  UringPool rings;
};

absl::Status ReadAll(OpenFile& file,
                     std::span<const ReadOperation> operations) {
  std::vector<Uring::Operation> batch;
  batch.reserve(operations.size());
  for (const ReadOperation& operation : operations) {
    batch.push_back(
        {operation.offset, operation.data.data(), operation.data.size()});
  }
  return file.Run(Uring::Direction::kRead, batch);
}

class FileReader final : public BlockReader {
 public:
  // `cached`: the same file without O_DIRECT, or invalid.
  FileReader(std::unique_ptr<OpenFile> file, UniqueFd cached)
      : file_(std::move(file)), cached_(std::move(cached)) {}

  const std::string& name() const override { return file_->name; }
  uint64_t size() const override { return file_->size; }
  absl::Status Read(std::span<const ReadOperation> operations) override {
    if (!cached_.valid()) return ReadAll(*file_, operations);
    std::vector<ReadOperation> left;
    for (const ReadOperation& operation : operations) {
      const uint64_t done = ReadFromCache(operation);
      if (done == operation.data.size()) continue;
      left.push_back({operation.offset + done, operation.data.subspan(done)});
    }
    return left.empty() ? absl::OkStatus() : ReadAll(*file_, left);
  }

 private:
  // Whole pages from the beginning of `operation`, as many as are in the cache.
  // Any error is the disk's to tell.
  uint64_t ReadFromCache(const ReadOperation& operation) {
    const iovec data = {operation.data.data(), operation.data.size()};
    const ssize_t done =
        ::preadv2(cached_.get(), &data, 1, static_cast<off_t>(operation.offset),
                  RWF_NOWAIT);
    if (done <= 0) return 0;
    const auto bytes = static_cast<uint64_t>(done);
    return bytes == data.iov_len ? bytes : bytes & ~(kPageBytes - 1);
  }

  const std::unique_ptr<OpenFile> file_;
  const UniqueFd cached_;
};

class FileWriter final : public BlockWriter {
 public:
  FileWriter(std::unique_ptr<OpenFile> file, const WriterOptions& options)
      : file_(std::move(file)), options_(options) {}

  const std::string& name() const override { return file_->name; }
  uint64_t size() const override { return file_->size; }

  absl::Status Write(std::span<const WriteOperation> operations) override {
    std::vector<Uring::Operation> batch;
    batch.reserve(operations.size());
    for (const WriteOperation& operation : operations) {
      // The ring only reads from it: Direction::kWrite.
      batch.push_back({operation.offset,
                       const_cast<std::byte*>(operation.data.data()),
                       operation.data.size()});
    }
    return file_->Run(Uring::Direction::kWrite, batch);
  }

  absl::Status Zero(Extent extent) override {
    if (extent.length == 0) return absl::OkStatus();
    if (extent.offset > size() || extent.length > size() - extent.offset) {
      return Error(Reason::kIo, At(name(), extent) + " lie beyond the end");
    }
    if (options_.zero_method == ZeroMethod::kPunchHole) {
      if (Allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, extent)) {
        return absl::OkStatus();
      }
      return WriteZeroes(extent);
    }
    // dm-thin honours a discard for whole blocks of the pool only.
    const uint64_t block = options_.discard_block;
    const uint64_t first = (extent.offset + block - 1) / block * block;
    const uint64_t last = extent.end() / block * block;
    if (first >= last) return WriteZeroesWhereNotZero(extent);
    const uint64_t end_of_head = std::min(first, extent.end());
    SNAPSYNC_RETURN_IF_ERROR(
        WriteZeroesWhereNotZero({extent.offset, end_of_head - extent.offset}));
    SNAPSYNC_RETURN_IF_ERROR(Discard({first, last - first}));
    return WriteZeroesWhereNotZero({last, extent.end() - last});
  }

  absl::Status Flush() override {
    if (::fdatasync(file_->fd.get()) != 0) {
      return PosixError(errno, name() + ": flush failed");
    }
    return absl::OkStatus();
  }

  absl::Status ReadBack(std::span<const ReadOperation> operations) override {
    return ReadAll(*file_, operations);
  }

 private:
  bool Allocate(int mode, Extent extent) {
    return ::fallocate(file_->fd.get(), mode, static_cast<off_t>(extent.offset),
                       static_cast<off_t>(extent.length)) == 0;
  }

  absl::Status Discard(Extent extent) {
    std::array<uint64_t, 2> range = {extent.offset, extent.length};
    if (::ioctl(file_->fd.get(), BLKDISCARD, range.data()) == 0) {
      return absl::OkStatus();
    }
    // A pool with ignore_discard.
    if (errno != EOPNOTSUPP) {
      return PosixError(errno, At(name(), extent) + " can't be discarded");
    }
    return WriteZeroesWhereNotZero(extent);
  }

  absl::Status WriteZeroesWhereNotZero(Extent extent) {
    AlignedBuffer buffer(std::min(kLookBytes, extent.length));
    for (uint64_t at = extent.offset; at < extent.end();) {
      const uint64_t length = std::min(kLookBytes, extent.end() - at);
      const std::span<std::byte> look(buffer.data(), length);
      const ReadOperation read{at, look};
      SNAPSYNC_RETURN_IF_ERROR(ReadAll(*file_, {&read, 1}));
      if (!IsZero(look)) SNAPSYNC_RETURN_IF_ERROR(WriteZeroes({at, length}));
      at += length;
    }
    return absl::OkStatus();
  }

  absl::Status WriteZeroes(Extent extent) {
    if (Allocate(FALLOC_FL_ZERO_RANGE, extent)) return absl::OkStatus();
    const AlignedBuffer zeroes(std::min(kMiB, extent.length));
    for (uint64_t at = extent.offset; at < extent.end();) {
      const uint64_t length = std::min(kMiB, extent.end() - at);
      const WriteOperation write{at, {zeroes.data(), length}};
      SNAPSYNC_RETURN_IF_ERROR(Write({&write, 1}));
      at += length;
    }
    return absl::OkStatus();
  }

  const std::unique_ptr<OpenFile> file_;
  const WriterOptions options_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<BlockReader>> OpenFileReader(
    const std::string& path, const ReaderOptions& options) {
  SNAPSYNC_ASSIGN_OR_RETURN(auto file, OpenFile::Open(path, O_RDONLY));
  if (!options.name.empty()) file->name = options.name;
  UniqueFd cached;
  if (options.from_cache && !file->is_block_device) {
    // The same file, whatever the path means by now.
    const std::string same = "/proc/self/fd/" + std::to_string(file->fd.get());
    cached.Reset(::open(same.c_str(), O_RDONLY | O_CLOEXEC));
  }
  return std::make_unique<FileReader>(std::move(file), std::move(cached));
}

absl::StatusOr<std::unique_ptr<BlockWriter>> OpenFileWriter(
    const std::string& path, const WriterOptions& options) {
  SNAPSYNC_ASSIGN_OR_RETURN(
      auto file,
      OpenFile::Open(path, O_RDWR | (options.exclusive ? O_EXCL : 0)));
  if (!options.name.empty()) file->name = options.name;
  return std::make_unique<FileWriter>(std::move(file), options);
}

}  // namespace snapsync
