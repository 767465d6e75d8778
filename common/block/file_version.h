// SPDX-License-Identifier: Apache-2.0
//
// Whether a regular file still has the contents that it had: which file it is,
// its size, and when it was last changed. The kernel sets the latter; nobody
// can set the time of the last change of the inode back.
//
// For files of this host. Thread-safe.
#ifndef SNAPSYNC_COMMON_BLOCK_FILE_VERSION_H_
#define SNAPSYNC_COMMON_BLOCK_FILE_VERSION_H_

#include <sys/stat.h>

#include <string>

namespace snapsync {

// Two equal texts mean equal contents. Empty, which equals nothing: not a
// regular file, or changed so lately that one more change may show no other
// time.
std::string FileVersion(const struct stat& facts);

// The same of what is open, or at a path, now.
std::string FileVersion(int fd);
std::string FileVersion(const std::string& path);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BLOCK_FILE_VERSION_H_
