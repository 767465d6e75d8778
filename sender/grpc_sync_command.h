// SPDX-License-Identifier: Apache-2.0
//
// `snapsync-send sync`: runs a sync to a remote agent or a local target, tells
// of progress on stderr and of the result on stdout.
#ifndef SNAPSYNC_SENDER_GRPC_SYNC_COMMAND_H_
#define SNAPSYNC_SENDER_GRPC_SYNC_COMMAND_H_

#include "sender/options.h"

namespace snapsync {

// The exit code. Called by main, while the process has one thread: SIGINT and
// SIGTERM end the sync in an orderly way, to be resumed.
int RunSyncCommand(SyncCommand command);

// The result on stdout, of schema "snapsync.COMMAND/1".
void PrintSyncJson(const std::string& command, const SyncResult& result,
                   int exit_code, const std::string& error);
void PrintSyncText(const std::string& volume, const SyncResult& result);

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_GRPC_SYNC_COMMAND_H_
