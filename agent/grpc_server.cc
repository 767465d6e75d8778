// SPDX-License-Identifier: Apache-2.0
#include "agent/grpc_server.h"

#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <malloc.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <memory>
#include <string>
#include <thread>

#include "agent/grpc_agent_service.h"
#include "agent/grpc_gate.h"
#include "agent/grpc_replication_service.h"
#include "agent/peer_policy.h"
#include "agent/session_registry.h"
#include "agent/tickets.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/wire/limits.h"
#include "common/wire/tls.h"

namespace snapsync {
namespace {

constexpr std::chrono::seconds kGrace{10};
constexpr time_t kLookAtSessionsSeconds = 60;
constexpr int kMemoryBytes = 64 << 20;
constexpr int kThreads = 64;

void SetLimits(grpc::ServerBuilder& builder) {
  grpc::ResourceQuota quota("snapsync");
  quota.Resize(kMemoryBytes).SetMaxThreads(kThreads);
  builder.SetResourceQuota(quota);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  // Without this a second agent would share the port in silence.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                             kMaxStreamsPerConnection);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS,
                             kHandshakeTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kFrameBytes);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES,
                             kStreamWindowBytes);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                             kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(
      GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
      kMinPingIntervalMs);
}

}  // namespace

absl::Status Serve(const AgentConfig& config) {
  const wire::TlsFiles files{config.tls_ca, config.tls_certificate,
                             config.tls_key};
  ::mallopt(M_ARENA_MAX, kMallocArenas);
  wire::RestrictToTls13();
  SNAPSYNC_ASSIGN_OR_RETURN(const std::string node, wire::CheckTlsFiles(files));

  // Blocked before any thread exists, so that only sigwait() below gets them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);

  SNAPSYNC_ASSIGN_OR_RETURN(const std::unique_ptr<SessionRegistry> registry,
                            SessionRegistry::Create(config));
  const PeerPolicy policy(config.clients);
  Tickets tickets;
  const GrpcGate gate(registry.get(), &policy, &tickets, node);
  GrpcReplicationService replication(
      &gate, &tickets, std::chrono::seconds(config.timeout_seconds),
      config.bytes_per_second);
  GrpcAgentService agent(&config, node, registry.get(), &gate, &tickets);

  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  SetLimits(builder);
  const auto credentials = wire::MakeServerCredentials(files);
  std::vector<int> ports(config.listen.size());
  for (size_t i = 0; i < config.listen.size(); ++i) {
    builder.AddListeningPort(config.listen[i], credentials, &ports[i]);
  }
  builder.RegisterService(&replication);
  builder.RegisterService(&agent);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  std::string addresses;
  for (size_t i = 0; i < ports.size(); ++i) {
    if (server == nullptr || ports[i] == 0) {
      return Error(Reason::kConfiguration,
                   "can't listen on " + config.listen[i] +
                       "; is the port taken, or the address not this host's?");
    }
    const size_t colon = config.listen[i].rfind(':');
    addresses += (i == 0 ? "" : ", ") + config.listen[i].substr(0, colon) +
                 ":" + std::to_string(ports[i]);
  }
  Log(Severity::kInfo, "listening on " + addresses);
  Log(Severity::kInfo, "node " + node + ", " +
                           std::to_string(config.volumes.size()) + " volumes");

  const std::chrono::seconds expiry(config.session_expiry_seconds);
  const timespec pause{kLookAtSessionsSeconds, 0};
  while (sigtimedwait(&signals, nullptr, &pause) < 0) {
    if (errno != EAGAIN || expiry.count() == 0) continue;
    registry->ExpireSessions(std::chrono::steady_clock::now(), expiry);
  }
  Log(Severity::kInfo, "stopping");
  server->Shutdown(std::chrono::system_clock::now() + kGrace);
  server->Wait();
  return absl::OkStatus();
}

}  // namespace snapsync
