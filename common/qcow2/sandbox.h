// SPDX-License-Identifier: Apache-2.0
//
// Gives up all that a process which only computes can do without: root's
// rights, capabilities, memory beyond 512 MiB, core dumps, and all system calls
// but those by which it reads from what it has open, talks over sockets that it
// has, and manages its memory and threads. A process that calls another one is
// killed on the spot.
//
// A sanitizer reserves terabytes of addresses, and reports on stderr: with one
// (kSanitized) there is no limit on memory, and some more calls are allowed.
#ifndef SNAPSYNC_COMMON_QCOW2_SANDBOX_H_
#define SNAPSYNC_COMMON_QCOW2_SANDBOX_H_

#include "absl/status/status.h"

#if defined(__has_feature)
#define SNAPSYNC_HAS_FEATURE(name) __has_feature(name)
#else
#define SNAPSYNC_HAS_FEATURE(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || \
    SNAPSYNC_HAS_FEATURE(address_sanitizer) ||                       \
    SNAPSYNC_HAS_FEATURE(thread_sanitizer)
#define SNAPSYNC_SANITIZED 1
#else
#define SNAPSYNC_SANITIZED 0
#endif

namespace snapsync::qcow2 {

inline constexpr bool kSanitized = SNAPSYNC_SANITIZED != 0;

// The first half, before threads are started: rights and limits.
absl::Status GiveUpRights();

// The second half: system calls, of all threads that there are.
absl::Status GiveUpSystemCalls();

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_SANDBOX_H_
