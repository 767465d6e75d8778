// SPDX-License-Identifier: Apache-2.0
//
// `snapsync-send revert`: asks the target's agent for a ticket, and the
// source's agent to send. Runs on either host, or on a third.
#ifndef SNAPSYNC_SENDER_GRPC_REVERT_COMMAND_H_
#define SNAPSYNC_SENDER_GRPC_REVERT_COMMAND_H_

#include "sender/options.h"

namespace snapsync {

// The exit code. Interrupted, it leaves a revert that the same command resumes.
int RunRevertCommand(const RevertCommand& command);

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_GRPC_REVERT_COMMAND_H_
