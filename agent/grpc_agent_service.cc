// SPDX-License-Identifier: Apache-2.0
#include "agent/grpc_agent_service.h"

#include "common/base/error.h"
#include "common/wire/convert.h"
#include "common/wire/limits.h"
#include "common/wire/status.h"
#include "common/wire/tls.h"

namespace snapsync {

grpc::Status GrpcAgentService::GetInfo(grpc::ServerContext* context,
                                       const v1::GetInfoRequest* /*request*/,
                                       v1::GetInfoResponse* response) {
  const absl::StatusOr<std::string> peer =
      wire::PeerName(*context->auth_context());
  if (!peer.ok()) return wire::ToGrpc(peer.status());
  response->set_name(name_);
  response->set_program_version(SNAPSYNC_VERSION);
  response->mutable_versions()->set_lowest(kLowestProtocol);
  response->mutable_versions()->set_highest(kHighestProtocol);
  return grpc::Status::OK;
}

grpc::Status GrpcAgentService::ListVolumes(
    grpc::ServerContext* context, const v1::ListVolumesRequest* request,
    v1::ListVolumesResponse* response) {
  const absl::StatusOr<std::string> peer =
      wire::PeerName(*context->auth_context());
  if (!peer.ok()) return wire::ToGrpc(peer.status());
  std::vector<std::string> names = registry_->names();
  if (!request->name().empty()) {
    names = {registry_->NameOf(request->name())};
  }
  for (const std::string& name : names) {
    if (absl::Status s = policy_->Check(*peer, "receive", name); !s.ok()) {
      if (request->name().empty()) continue;
      return wire::ToGrpc(s);
    }
    const absl::StatusOr<Replica*> replica = registry_->Find(name);
    if (!replica.ok()) return wire::ToGrpc(replica.status());
    const absl::StatusOr<VolumeState> state = (*replica)->Describe();
    if (!state.ok()) return wire::ToGrpc(state.status());
    *response->add_volumes() = wire::ToProto(*state);
  }
  return grpc::Status::OK;
}

}  // namespace snapsync
