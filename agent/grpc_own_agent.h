// SPDX-License-Identifier: Apache-2.0
//
// What an operator asks of the agent on its own host: through the one that runs
// there, or without one.
#ifndef SNAPSYNC_AGENT_GRPC_OWN_AGENT_H_
#define SNAPSYNC_AGENT_GRPC_OWN_AGENT_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/config.h"
#include "agent/scrub.h"

namespace snapsync {

// `snapsync-agent promote VOLUME`.
absl::Status PromoteVolume(const AgentConfig& config,
                           const std::string& volume);

// `snapsync-agent scrub VOLUME`; `report` is called after each step.
absl::StatusOr<ScrubProgress> ScrubVolume(
    const AgentConfig& config, const std::string& volume,
    const ScrubOptions& options,
    const std::function<absl::Status(const ScrubProgress&)>& report);

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_GRPC_OWN_AGENT_H_
