// SPDX-License-Identifier: Apache-2.0
//
// An agent over gRPC and mutual TLS. A call in which nothing moves for the
// timeout is ended; a connection that does not come about is asked for its
// reason (common/wire/tls.h).
#ifndef SNAPSYNC_SENDER_GRPC_AGENT_CLIENT_H_
#define SNAPSYNC_SENDER_GRPC_AGENT_CLIENT_H_

#include <grpcpp/channel.h>

#include <chrono>
#include <memory>
#include <string>

#include "common/wire/tls.h"
#include "sender/agent_client.h"

namespace snapsync {

struct GrpcAgentOptions {
  std::string host;
  int port = 0;
  wire::TlsFiles files;             // checked by the caller
  std::chrono::seconds timeout{0};  // without progress; 0: never
  std::string ticket;               // shown with each call; empty: none
  std::string server_name;  // in the agent's certificate; empty: the host
};

// Connects with the first call.
std::shared_ptr<grpc::Channel> MakeAgentChannel(
    const GrpcAgentOptions& options);

// Connects with the first call.
std::unique_ptr<AgentClient> MakeGrpcAgentClient(
    const GrpcAgentOptions& options);

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_GRPC_AGENT_CLIENT_H_
