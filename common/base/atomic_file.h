// SPDX-License-Identifier: Apache-2.0
//
// Small files that must survive a power cut whole: written to a temporary file,
// flushed, renamed over the old one, and the folder flushed. A reader sees the
// old contents or the new, never a mixture. A failed flush is not tried again.
//
// Thread-safe for different paths; one writer at a time for one path.
#ifndef SNAPSYNC_COMMON_BASE_ATOMIC_FILE_H_
#define SNAPSYNC_COMMON_BASE_ATOMIC_FILE_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace snapsync {

// kIo, with the path. The file's mode is 0600.
absl::Status WriteFileAtomically(const std::string& path,
                                 std::string_view contents);

// kIo when it can't be read or is larger than `limit` bytes; NotFound (code)
// when it does not exist.
absl::StatusOr<std::string> ReadWholeFile(const std::string& path,
                                          size_t limit = 16U << 20);

// Removes a file, durably. OK when it does not exist.
absl::Status RemoveFile(const std::string& path);

// Makes a folder (0700) and those above it where they are missing, durably.
absl::Status MakeFolder(const std::string& path);

// Makes the names in a folder durable.
absl::Status SyncFolder(const std::string& path);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BASE_ATOMIC_FILE_H_
