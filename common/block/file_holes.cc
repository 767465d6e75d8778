// SPDX-License-Identifier: Apache-2.0
#include "common/block/file_holes.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/base/error.h"
#include "common/base/unique_fd.h"

namespace snapsync {

absl::StatusOr<ExtentList> FindFileData(const std::string& path,
                                        uint64_t size) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat facts {};
  if (!fd.valid() || ::fstat(fd.get(), &facts) != 0) {
    return PosixError(errno, "can't look at " + path);
  }
  ExtentList found;
  for (uint64_t at = 0; at < size;) {
    off_t data = static_cast<off_t>(at);
    off_t hole = static_cast<off_t>(size);
    if (S_ISREG(facts.st_mode)) {
      data = ::lseek(fd.get(), static_cast<off_t>(at), SEEK_DATA);
      if (data < 0 && errno == ENXIO) break;  // nothing but holes to the end
      if (data < 0) {
        data = static_cast<off_t>(at);
      } else {
        hole = ::lseek(fd.get(), data, SEEK_HOLE);
        if (hole <= data) hole = static_cast<off_t>(size);
      }
    }
    const uint64_t begin = std::max(
        at, static_cast<uint64_t>(data) / kHoleGrainBytes * kHoleGrainBytes);
    const uint64_t end =
        std::min(size, (static_cast<uint64_t>(hole) + kHoleGrainBytes - 1) /
                           kHoleGrainBytes * kHoleGrainBytes);
    if (begin >= size) break;
    found.Append({begin, end - begin});
    at = end;
  }
  return found;
}

}  // namespace snapsync
