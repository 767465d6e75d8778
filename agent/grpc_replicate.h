// SPDX-License-Identifier: Apache-2.0
//
// An agent that is told to replicate is a sender: the sync of the sender's
// library, from a volume of this agent to another agent, with the ticket that
// the other one issued.
#ifndef SNAPSYNC_AGENT_GRPC_REPLICATE_H_
#define SNAPSYNC_AGENT_GRPC_REPLICATE_H_

#include "absl/status/status.h"
#include "agent/config.h"
#include "agent/grpc_gate.h"
#include "snapsync/v1/agent.grpc.pb.h"

namespace snapsync {

// Returns when it is done, failed, or the call was cancelled. A volume that was
// promoted receives again when the other side has its state.
absl::Status RunReplicate(const AgentConfig& config, const Caller& caller,
                          grpc::ServerContext& context,
                          const v1::ReplicateRequest& request,
                          grpc::ServerWriter<v1::ReplicateResponse>& writer);

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_GRPC_REPLICATE_H_
