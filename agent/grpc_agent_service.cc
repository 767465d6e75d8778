// SPDX-License-Identifier: Apache-2.0
#include "agent/grpc_agent_service.h"

#include <chrono>
#include <vector>

#include "agent/grpc_replicate.h"
#include "agent/scrub.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"
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
  response->set_name(config_->name.empty() ? node_ : config_->name);
  response->set_node(node_);
  response->set_program_version(SNAPSYNC_VERSION);
  response->mutable_versions()->set_lowest(kLowestProtocol);
  response->mutable_versions()->set_highest(kHighestProtocol);
  return grpc::Status::OK;
}

// Whoever may do anything with a volume may see what state it is in.
absl::StatusOr<Caller> GrpcAgentService::AdmitToLook(
    const grpc::ServerContext& context, const std::string& volume) const {
  absl::StatusOr<Caller> caller = gate_->Admit(context, "receive", volume);
  for (const char* right : {"send", "revert"}) {
    if (caller.ok()) return caller;
    if (absl::StatusOr<Caller> other = gate_->Admit(context, right, volume);
        other.ok()) {
      return other;
    }
  }
  return caller;
}

grpc::Status GrpcAgentService::ListVolumes(
    grpc::ServerContext* context, const v1::ListVolumesRequest* request,
    v1::ListVolumesResponse* response) {
  std::vector<std::string> names = registry_->names();
  if (!request->name().empty()) names = {request->name()};
  for (const std::string& name : names) {
    const absl::StatusOr<Caller> caller = AdmitToLook(*context, name);
    if (!caller.ok()) {
      if (request->name().empty()) continue;
      return wire::ToGrpc(caller.status());
    }
    const absl::StatusOr<VolumeState> state = caller->replica->Describe();
    if (!state.ok()) return wire::ToGrpc(state.status());
    *response->add_volumes() = wire::ToProto(*state);
  }
  return grpc::Status::OK;
}

grpc::Status GrpcAgentService::IssueTicket(
    grpc::ServerContext* context, const v1::IssueTicketRequest* request,
    v1::IssueTicketResponse* response) {
  const absl::StatusOr<Caller> caller =
      gate_->Admit(*context, "revert", request->volume());
  if (!caller.ok()) return wire::ToGrpc(caller.status());
  response->set_ticket(tickets_->Issue(request->peer(), caller->volume,
                                       std::chrono::steady_clock::now()));
  Log(Severity::kInfo, "volume " + caller->volume + ": " + caller->peer +
                           " lets " + request->peer() + " bring it back");
  return grpc::Status::OK;
}

grpc::Status GrpcAgentService::Replicate(
    grpc::ServerContext* context, const v1::ReplicateRequest* request,
    grpc::ServerWriter<v1::ReplicateResponse>* writer) {
  const absl::StatusOr<Caller> caller =
      gate_->Admit(*context, "send", request->volume());
  if (!caller.ok()) return wire::ToGrpc(caller.status());
  const absl::Status status =
      RunReplicate(*config_, *caller, *context, *request, *writer);
  if (!status.ok()) {
    Log(Severity::kWarning,
        "replicate " + caller->volume + ": " + std::string(MessageOf(status)));
  }
  return wire::ToGrpc(status);
}

grpc::Status GrpcAgentService::Promote(grpc::ServerContext* context,
                                       const v1::PromoteRequest* request,
                                       v1::PromoteResponse* /*response*/) {
  const absl::StatusOr<Caller> caller =
      gate_->Admit(*context, "promote", request->volume());
  return wire::ToGrpc(caller.ok() ? caller->replica->Promote()
                                  : caller.status());
}

grpc::Status GrpcAgentService::Scrub(
    grpc::ServerContext* context, const v1::ScrubRequest* request,
    grpc::ServerWriter<v1::ScrubResponse>* writer) {
  // Like promoting, it is for this host's own operator.
  const absl::StatusOr<Caller> caller =
      gate_->Admit(*context, "promote", request->volume());
  if (!caller.ok()) return wire::ToGrpc(caller.status());
  ScrubOptions options;
  options.from = request->from();
  options.bytes_per_second = request->bytes_per_second();
  options.renew = request->renew();
  options.cancelled = [context] { return context->IsCancelled(); };
  const absl::StatusOr<ScrubProgress> done =
      RunScrub(*caller->replica, options, [&](const ScrubProgress& progress) {
        for (const Extent& extent : progress.damaged) {
          Log(Severity::kError,
              "volume " + caller->volume +
                  ": damaged: " + std::to_string(extent.length) +
                  " bytes at offset " + std::to_string(extent.offset));
        }
        return writer->Write(wire::ToProto(progress))
                   ? absl::OkStatus()
                   : Error(Reason::kConnection, "nobody waits for the scrub");
      });
  if (done.ok()) {
    Log(Severity::kInfo, "volume " + caller->volume + ": scrubbed, " +
                             FormatBytes(done->damaged_bytes) + " damaged");
  }
  return wire::ToGrpc(done.status());
}

}  // namespace snapsync
