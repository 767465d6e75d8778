// SPDX-License-Identifier: Apache-2.0
//
// A state file: a header line, then a body of text (JSON, so that an operator
// can read it):
//
//   snapsync KIND VERSION CRC32C-OF-THE-BODY\n
//   {...}
//
// Checked when read: kind, version, checksum. Written whole (atomic_file.h).
// docs/formats.md describes the bodies.
#ifndef SNAPSYNC_COMMON_BASE_STATE_FILE_H_
#define SNAPSYNC_COMMON_BASE_STATE_FILE_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace snapsync {

// The contents of a state file. `kind` has no space.
std::string EncodeState(std::string_view kind, int version,
                        std::string_view body);

// The body. kIo, naming `path`, when the contents are not a state file of this
// kind and version, or damaged.
absl::StatusOr<std::string> DecodeState(std::string_view kind, int version,
                                        const std::string& path,
                                        std::string_view contents);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BASE_STATE_FILE_H_
