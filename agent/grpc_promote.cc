// SPDX-License-Identifier: Apache-2.0
#include "agent/grpc_promote.h"

#include <grpcpp/client_context.h>

#include <chrono>
#include <cstdlib>

#include "agent/session_registry.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/wire/status.h"
#include "common/wire/tls.h"
#include "sender/grpc_agent_client.h"
#include "snapsync/v1/agent.grpc.pb.h"

namespace snapsync {
namespace {

constexpr std::chrono::seconds kPatience{60};

// In every node's certificate (certs/make-certs).
constexpr char kServerName[] = "localhost";

absl::Status ThroughTheAgent(const AgentConfig& config,
                             const std::string& volume) {
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
  const auto stub = v1::Agent::NewStub(MakeAgentChannel(options));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  v1::PromoteRequest request;
  request.set_volume(volume);
  v1::PromoteResponse response;
  return wire::FromGrpc(stub->Promote(&context, request, &response));
}

}  // namespace

absl::Status PromoteVolume(const AgentConfig& config,
                           const std::string& volume) {
  {
    const auto registry = SessionRegistry::Create(config);
    if (registry.ok()) {
      SNAPSYNC_ASSIGN_OR_RETURN(Replica* const replica,
                                (*registry)->Find((*registry)->NameOf(volume)));
      return replica->Promote();
    }
    if (ReasonOf(registry.status()) != Reason::kBusy) return registry.status();
  }
  return ThroughTheAgent(config, volume);
}

}  // namespace snapsync
