// SPDX-License-Identifier: Apache-2.0
//
// Runs the agent's services until it is told to stop.
#ifndef SNAPSYNC_AGENT_GRPC_SERVER_H_
#define SNAPSYNC_AGENT_GRPC_SERVER_H_

#include "absl/status/status.h"
#include "agent/config.h"

namespace snapsync {

// Checks certificates and the state directory, listens, and serves until
// SIGTERM or SIGINT; then lets calls under way end for a while. Called by main,
// while the process has one thread.
absl::Status Serve(const AgentConfig& config);

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_GRPC_SERVER_H_
