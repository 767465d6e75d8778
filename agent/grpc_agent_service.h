// SPDX-License-Identifier: Apache-2.0
//
// The Agent service on gRPC: what this agent is and what volumes the caller may
// use. Thread-safe.
#ifndef SNAPSYNC_AGENT_GRPC_AGENT_SERVICE_H_
#define SNAPSYNC_AGENT_GRPC_AGENT_SERVICE_H_

#include <string>
#include <utility>

#include "agent/peer_policy.h"
#include "agent/session_registry.h"
#include "snapsync/v1/agent.grpc.pb.h"

namespace snapsync {

class GrpcAgentService final : public v1::Agent::Service {
 public:
  // Both must outlive it.
  GrpcAgentService(std::string name, const SessionRegistry* registry,
                   const PeerPolicy* policy)
      : name_(std::move(name)), registry_(registry), policy_(policy) {}

  grpc::Status GetInfo(grpc::ServerContext* context,
                       const v1::GetInfoRequest* request,
                       v1::GetInfoResponse* response) override;
  grpc::Status ListVolumes(grpc::ServerContext* context,
                           const v1::ListVolumesRequest* request,
                           v1::ListVolumesResponse* response) override;

 private:
  const std::string name_;
  const SessionRegistry* const registry_;
  const PeerPolicy* const policy_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_GRPC_AGENT_SERVICE_H_
