// SPDX-License-Identifier: Apache-2.0
//
// Gives up all that a process which only computes can do without: root's
// rights, capabilities, memory beyond 512 MiB, core dumps, and all system calls
// but those by which it reads from what it has open, talks over sockets that it
// has, and manages its memory and threads. A process that calls another one is
// killed on the spot.
//
// Under AddressSanitizer, which reserves terabytes of addresses and reports on
// stderr, there is no limit on memory, and a few calls more are allowed.
#ifndef SNAPSYNC_COMMON_QCOW2_SANDBOX_H_
#define SNAPSYNC_COMMON_QCOW2_SANDBOX_H_

#include "absl/status/status.h"

namespace snapsync::qcow2 {

// The first half, before threads are started: rights and limits.
absl::Status GiveUpRights();

// The second half: system calls, of all threads that there are.
absl::Status GiveUpSystemCalls();

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_SANDBOX_H_
