// SPDX-License-Identifier: Apache-2.0
//
// Giving an interrupted sync up: the target goes back to the generation that it
// held (one that is written in place stays torn), and what this side keeps of
// the sync, its plan and the snapshot made for it, goes.
#ifndef SNAPSYNC_SENDER_ABORT_H_
#define SNAPSYNC_SENDER_ABORT_H_

#include "absl/status/status.h"
#include "sender/agent_client.h"
#include "sender/sync.h"

namespace snapsync {

// Of `options`, --dst and --uuid count. Nothing to give up is no error. The
// generation that the target holds is in `result`. kBusy while a sync runs.
absl::Status RunAbort(const SyncOptions& options, AgentClient& agent,
                      SyncResult& result);

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_ABORT_H_
