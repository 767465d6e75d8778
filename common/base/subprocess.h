// SPDX-License-Identifier: Apache-2.0
//
// Runs a program of the system and waits for it: found by name in the system's
// own folders only, arguments as they are (no shell), a clean environment,
// nothing on its stdin, no descriptor of ours open in it, its output taken up
// to a limit, and never longer than a time limit.
//
// Thread-safe.
#ifndef SNAPSYNC_COMMON_BASE_SUBPROCESS_H_
#define SNAPSYNC_COMMON_BASE_SUBPROCESS_H_

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace snapsync {

struct SubprocessLimits {
  // Then it gets SIGTERM, and SIGKILL after ten seconds more: LVM does not die
  // of the first while devices are suspended.
  std::chrono::milliseconds time{120000};
  // Of stdout; more is an error. Of stderr the last 16 KiB are kept.
  size_t output_bytes = 64U << 20;
};

struct SubprocessResult {
  std::string command_line;  // for errors
  int exit_status = 0;       // 128 + the signal's number if one killed it
  std::string output;        // stdout
  std::string error_output;  // stderr
};

// Runs argv[0], a name without slash looked for in /usr/sbin, /sbin, /usr/bin
// and /bin, or an absolute path. Whatever it exits with is OK here.
// kConfiguration when there is no such program, kConnection when it took too
// long, kIo when it could not be run or printed too much.
absl::StatusOr<SubprocessResult> RunSubprocess(
    const std::vector<std::string>& argv, const SubprocessLimits& limits = {});

// For the error about a program that exited with a status that it should not
// have: "`lvs vg`: exit status 5: its last lines on stderr".
std::string DescribeFailure(const SubprocessResult& result);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BASE_SUBPROCESS_H_
