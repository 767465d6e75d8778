// SPDX-License-Identifier: Apache-2.0
#include "common/thin/metadata_device.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/unique_fd.h"
#include "common/block/uring.h"
#include "common/thin/format.h"

namespace snapsync {
namespace {

// Blocks read by one call when they are adjacent: 1 MiB.
constexpr size_t kRunBlocksMax = 256;

class FileMetadataReader final : public MetadataReader {
 public:
  FileMetadataReader(std::string name, UniqueFd fd, uint64_t block_count)
      : name_(std::move(name)), fd_(std::move(fd)), block_count_(block_count) {
    // Where io_uring is forbidden, reads go one by one: slower, no less right.
    absl::StatusOr<std::unique_ptr<Uring>> uring = Uring::Create();
    if (uring.ok()) uring_ = *std::move(uring);
  }

  const std::string& name() const override { return name_; }
  uint64_t block_count() const override { return block_count_; }

  absl::Status Read(std::span<const uint64_t> blocks,
                    std::span<std::byte> out) override {
    if (!blocks.empty() && blocks.back() >= block_count_) {
      return Error(Reason::kIo,
                   absl::StrCat(name_, ": metadata block ", blocks.back(),
                                " is needed, but it ends after ", block_count_,
                                " blocks of 4096 bytes; is it the whole "
                                "metadata device?"));
    }
    std::vector<Uring::Operation> runs;
    for (size_t done = 0; done < blocks.size();) {
      size_t run = 1;
      while (done + run < blocks.size() && run < kRunBlocksMax &&
             blocks[done + run] == blocks[done] + run) {
        ++run;
      }
      runs.push_back({blocks[done] * kMetadataBlockSize,
                      &out[done * kMetadataBlockSize],
                      run * kMetadataBlockSize});
      done += run;
    }
    if (uring_ && runs.size() > 1) {
      return uring_->Run(Uring::Direction::kRead, fd_.get(), name_, runs);
    }
    for (const Uring::Operation& run : runs) {
      absl::Status status = ReadRun(run);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  absl::Status ReadRun(Uring::Operation run) {
    while (run.length > 0) {
      const ssize_t got = ::pread(fd_.get(), run.data, run.length,
                                  static_cast<off_t>(run.offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) {
        return PosixError(errno,
                          absl::StrCat(name_, ": can't read ", run.length,
                                       " bytes at offset ", run.offset));
      }
      if (got == 0) {
        return Error(Reason::kIo,
                     absl::StrCat(name_, ": ends at offset ", run.offset,
                                  ", shorter than it was when it was opened"));
      }
      run.data += got;
      run.offset += static_cast<uint64_t>(got);
      run.length -= static_cast<size_t>(got);
    }
    return absl::OkStatus();
  }

  const std::string name_;
  const UniqueFd fd_;
  const uint64_t block_count_;
  std::unique_ptr<Uring> uring_;  // null: not available
};

}  // namespace

absl::StatusOr<std::unique_ptr<MetadataReader>> OpenMetadata(
    const std::string& path) {
  // O_NONBLOCK for the opening alone: that of a FIFO must not hang. Reads
  // through io_uring would fail with EAGAIN instead of waiting for the disk.
  constexpr int kFlags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  UniqueFd fd(::open(path.c_str(), kFlags | O_DIRECT));
  bool direct = fd.valid();
  if (!fd.valid() && errno == EINVAL) {
    fd.Reset(::open(path.c_str(), kFlags));
  }
  struct stat facts {};
  if (!fd.valid() || ::fstat(fd.get(), &facts) != 0) {
    return PosixError(errno, absl::StrCat(path, ": can't open the metadata"));
  }
  const int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags < 0 || ::fcntl(fd.get(), F_SETFL, flags & ~O_NONBLOCK) != 0) {
    return PosixError(errno, absl::StrCat(path, ": can't open the metadata"));
  }
  uint64_t size = 0;
  if (S_ISBLK(facts.st_mode)) {
    if (!direct) {
      // The page cache may hold blocks that the kernel has long overwritten.
      return Error(Reason::kIo,
                   absl::StrCat(path,
                                ": the device can't be read with "
                                "O_DIRECT, without which metadata may be "
                                "out of date"));
    }
    if (::ioctl(fd.get(), BLKGETSIZE64, &size) != 0) {
      return PosixError(errno, absl::StrCat(path, ": can't tell its size"));
    }
  } else if (S_ISREG(facts.st_mode)) {
    size = static_cast<uint64_t>(facts.st_size);
  } else {
    return Error(Reason::kIo,
                 absl::StrCat(path, ": is neither a block device nor a file"));
  }
  return std::make_unique<FileMetadataReader>(path, std::move(fd),
                                              size / kMetadataBlockSize);
}

absl::Status DamagedMetadata(std::string_view device, uint64_t block,
                             std::string_view field, std::string_view found,
                             std::string_view expected) {
  return Error(
      Reason::kIo,
      absl::StrCat(std::string(device), ": metadata block ", block, ": ",
                   std::string(field), ": found ", std::string(found),
                   ", expected ", std::string(expected),
                   "; the metadata is damaged or not thin metadata: examine it "
                   "with thin_check"));
}

}  // namespace snapsync
