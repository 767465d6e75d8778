// SPDX-License-Identifier: Apache-2.0
//
// What the kernel says in files of one line, in /sys and /proc.
#ifndef SNAPSYNC_COMMON_BASE_FIRST_LINE_H_
#define SNAPSYNC_COMMON_BASE_FIRST_LINE_H_

#include <string>

namespace snapsync {

// Without its end; empty when the file can't be read. Thread-safe.
std::string FirstLine(const std::string& path);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BASE_FIRST_LINE_H_
