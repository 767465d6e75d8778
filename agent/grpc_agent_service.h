// SPDX-License-Identifier: Apache-2.0
//
// The Agent service on gRPC: what this agent is, what volumes the caller may
// use, and what it does with them by itself. Thread-safe.
#ifndef SNAPSYNC_AGENT_GRPC_AGENT_SERVICE_H_
#define SNAPSYNC_AGENT_GRPC_AGENT_SERVICE_H_

#include <string>
#include <utility>

#include "agent/config.h"
#include "agent/grpc_gate.h"
#include "agent/session_registry.h"
#include "agent/tickets.h"
#include "snapsync/v1/agent.grpc.pb.h"

namespace snapsync {

class GrpcAgentService final : public v1::Agent::Service {
 public:
  // All must outlive it. `node`: the name in the certificate.
  GrpcAgentService(const AgentConfig* config, std::string node,
                   const SessionRegistry* registry, const GrpcGate* gate,
                   Tickets* tickets)
      : config_(config),
        node_(std::move(node)),
        registry_(registry),
        gate_(gate),
        tickets_(tickets) {}

  grpc::Status GetInfo(grpc::ServerContext* context,
                       const v1::GetInfoRequest* request,
                       v1::GetInfoResponse* response) override;
  grpc::Status ListVolumes(grpc::ServerContext* context,
                           const v1::ListVolumesRequest* request,
                           v1::ListVolumesResponse* response) override;
  grpc::Status IssueTicket(grpc::ServerContext* context,
                           const v1::IssueTicketRequest* request,
                           v1::IssueTicketResponse* response) override;
  grpc::Status Replicate(
      grpc::ServerContext* context, const v1::ReplicateRequest* request,
      grpc::ServerWriter<v1::ReplicateResponse>* writer) override;
  grpc::Status Promote(grpc::ServerContext* context,
                       const v1::PromoteRequest* request,
                       v1::PromoteResponse* response) override;
  grpc::Status Scrub(grpc::ServerContext* context,
                     const v1::ScrubRequest* request,
                     grpc::ServerWriter<v1::ScrubResponse>* writer) override;

 private:
  absl::StatusOr<Caller> AdmitToLook(const grpc::ServerContext& context,
                                     const std::string& volume) const;

  const AgentConfig* const config_;
  const std::string node_;
  const SessionRegistry* const registry_;
  const GrpcGate* const gate_;
  Tickets* const tickets_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_GRPC_AGENT_SERVICE_H_
