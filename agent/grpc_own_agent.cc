// SPDX-License-Identifier: Apache-2.0
#include "agent/grpc_own_agent.h"

#include <grpcpp/client_context.h>

#include <chrono>
#include <cstdlib>
#include <memory>

#include "agent/session_registry.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/wire/convert.h"
#include "common/wire/status.h"
#include "common/wire/tls.h"
#include "sender/grpc_agent_client.h"
#include "snapsync/v1/agent.grpc.pb.h"

namespace snapsync {
namespace {

constexpr std::chrono::seconds kPatience{60};

// In every node's certificate (certs/make-certs).
constexpr char kServerName[] = "localhost";

absl::StatusOr<std::unique_ptr<v1::Agent::Stub>> ConnectToAgent(
    const AgentConfig& config) {
  const std::string& listen = config.listen.front();
  const size_t colon = listen.rfind(':');
  GrpcAgentOptions options;
  options.host = listen.substr(0, colon);
  if (options.host == "0.0.0.0" || options.host == "[::]") {
    options.host = "localhost";
  } else if (options.host.starts_with("[")) {
    options.host = options.host.substr(1, options.host.size() - 2);
  }
  options.port = std::atoi(listen.c_str() + colon + 1);
  options.files = {config.tls_ca, config.tls_certificate, config.tls_key};
  options.server_name = kServerName;
  wire::RestrictToTls13();
  SNAPSYNC_RETURN_IF_ERROR(wire::CheckTlsFiles(options.files).status());
  return v1::Agent::NewStub(MakeAgentChannel(options));
}

// nullptr: an agent runs here.
absl::StatusOr<std::unique_ptr<SessionRegistry>> WithoutAgent(
    const AgentConfig& config) {
  absl::StatusOr<std::unique_ptr<SessionRegistry>> registry =
      SessionRegistry::Create(config);
  if (registry.ok() || ReasonOf(registry.status()) != Reason::kBusy) {
    return registry;
  }
  return nullptr;
}

}  // namespace

absl::Status PromoteVolume(const AgentConfig& config,
                           const std::string& volume) {
  SNAPSYNC_ASSIGN_OR_RETURN(const auto registry, WithoutAgent(config));
  if (registry != nullptr) {
    SNAPSYNC_ASSIGN_OR_RETURN(Replica* const replica,
                              registry->Find(registry->NameOf(volume)));
    return replica->Promote();
  }
  SNAPSYNC_ASSIGN_OR_RETURN(const auto agent, ConnectToAgent(config));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  v1::PromoteRequest request;
  request.set_volume(volume);
  v1::PromoteResponse response;
  return wire::FromGrpc(agent->Promote(&context, request, &response));
}

absl::StatusOr<ScrubProgress> ScrubVolume(
    const AgentConfig& config, const std::string& volume,
    const ScrubOptions& options,
    const std::function<absl::Status(const ScrubProgress&)>& report) {
  SNAPSYNC_ASSIGN_OR_RETURN(const auto registry, WithoutAgent(config));
  if (registry != nullptr) {
    SNAPSYNC_ASSIGN_OR_RETURN(Replica* const replica,
                              registry->Find(registry->NameOf(volume)));
    return RunScrub(*replica, options, report);
  }
  SNAPSYNC_ASSIGN_OR_RETURN(const auto agent, ConnectToAgent(config));
  grpc::ClientContext context;
  v1::ScrubRequest request;
  request.set_volume(volume);
  request.set_from(options.from);
  request.set_bytes_per_second(options.bytes_per_second);
  request.set_renew(options.renew);
  const auto responses = agent->Scrub(&context, request);
  v1::ScrubResponse response;
  ScrubProgress progress;
  absl::Status status;
  while (status.ok() && responses->Read(&response)) {
    SNAPSYNC_ASSIGN_OR_RETURN(progress, wire::FromProto(response));
    status = report(progress);
  }
  if (!status.ok()) {
    context.TryCancel();
    return status;
  }
  SNAPSYNC_RETURN_IF_ERROR(wire::FromGrpc(responses->Finish()));
  if (progress.next < progress.size) {
    return Error(Reason::kConnection,
                 "the agent ended the scrub early; it can go on with --from " +
                     std::to_string(progress.next));
  }
  return progress;
}

}  // namespace snapsync
