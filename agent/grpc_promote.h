// SPDX-License-Identifier: Apache-2.0
//
// `snapsync-agent promote VOLUME`, on the agent's own host: through the agent
// that runs there, or without one.
#ifndef SNAPSYNC_AGENT_GRPC_PROMOTE_H_
#define SNAPSYNC_AGENT_GRPC_PROMOTE_H_

#include <string>

#include "absl/status/status.h"
#include "agent/config.h"

namespace snapsync {

absl::Status PromoteVolume(const AgentConfig& config,
                           const std::string& volume);

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_GRPC_PROMOTE_H_
