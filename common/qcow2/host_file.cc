// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/host_file.h"

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "common/base/error.h"

namespace snapsync::qcow2 {

absl::StatusOr<std::shared_ptr<const HostFile>> HostFile::Make(
    UniqueFd fd, const std::string& name) {
  struct stat facts {};
  if (::fstat(fd.get(), &facts) != 0) {
    return PosixError(errno, name + ": can't be examined");
  }
  uint64_t size = 0;
  if (S_ISREG(facts.st_mode)) {
    size = static_cast<uint64_t>(facts.st_size);
  } else if (!S_ISBLK(facts.st_mode)) {
    return Error(Reason::kTargetUnsuitable,
                 name + ": neither a regular file nor a block device");
  } else if (::ioctl(fd.get(), BLKGETSIZE64, &size) != 0) {
    return PosixError(errno, name + ": the size can't be read");
  }
  return Make(std::move(fd), name, size);
}

std::shared_ptr<const HostFile> HostFile::Make(UniqueFd fd,
                                               const std::string& name,
                                               uint64_t size) {
  return std::shared_ptr<const HostFile>(
      new HostFile(std::move(fd), name, size));
}

bool HostFile::IsCached(uint64_t offset, uint64_t length) const {
  static const auto kPageBytes = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t begin = offset - offset % kPageBytes;
  const size_t bytes = offset + length - begin;
  // Never touched: only asked about.
  void* mapped = ::mmap(nullptr, bytes, PROT_NONE, MAP_SHARED, fd_.get(),
                        static_cast<off_t>(begin));
  if (mapped == MAP_FAILED) return false;
  std::vector<unsigned char> pages((bytes + kPageBytes - 1) / kPageBytes);
  const bool known = ::mincore(mapped, bytes, pages.data()) == 0;
  ::munmap(mapped, bytes);
  return known && std::all_of(pages.begin(), pages.end(),
                              [](unsigned char page) { return page & 1U; });
}

absl::Status HostFile::Read(uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const size_t there =
        offset < size_ ? std::min<uint64_t>(out.size(), size_ - offset) : 0;
    if (there == 0) {
      std::memset(out.data(), 0, out.size());
      return absl::OkStatus();
    }
    const ssize_t got =
        ::pread(fd_.get(), out.data(), there, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      // 0: somebody cut the file while it is read.
      return PosixError(got < 0 ? errno : ENODATA,
                        name_ + ": read of " + std::to_string(there) +
                            " bytes at offset " + std::to_string(offset) +
                            " failed");
    }
    offset += static_cast<uint64_t>(got);
    out = out.subspan(static_cast<size_t>(got));
  }
  return absl::OkStatus();
}

}  // namespace snapsync::qcow2
