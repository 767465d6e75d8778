// SPDX-License-Identifier: Apache-2.0
//
// `snapsync-agent scrub VOLUME`: what people see of it.
#ifndef SNAPSYNC_AGENT_GRPC_SCRUB_COMMAND_H_
#define SNAPSYNC_AGENT_GRPC_SCRUB_COMMAND_H_

#include <string>

#include "absl/status/status.h"
#include "agent/config.h"
#include "agent/scrub.h"

namespace snapsync {

// Damage and progress go to stderr as they come, the result to stdout: a line
// for people, or one JSON object. kVerification when something is damaged.
absl::Status RunScrubCommand(const AgentConfig& config,
                             const std::string& volume,
                             const ScrubOptions& options, bool json);

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_GRPC_SCRUB_COMMAND_H_
