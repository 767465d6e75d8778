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

#include "absl/strings/str_join.h"
#include "agent/acceptor.h"
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
constexpr time_t kTendEverySeconds = 60;
constexpr int kMemoryBytes = 64 << 20;
constexpr int kThreads = 64;

void SetLimits(grpc::ServerBuilder& builder) {
  grpc::ResourceQuota quota("snapsync");
  quota.Resize(kMemoryBytes).SetMaxThreads(kThreads);
  builder.SetResourceQuota(quota);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
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
  SNAPSYNC_ASSIGN_OR_RETURN(const std::unique_ptr<Acceptor> acceptor,
                            Acceptor::Listen(config.listen));
  using Builder = grpc::ServerBuilder::experimental_type;
  const auto connections = builder.experimental().AddExternalConnectionAcceptor(
      Builder::ExternalConnectionType::FROM_FD,
      wire::MakeServerCredentials(files));
  builder.RegisterService(&replication);
  builder.RegisterService(&agent);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return Error(Reason::kOther, "gRPC does not start");
  acceptor->Start([&](int listener, int connection) {
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters
        accepted;
    accepted.listener_fd = listener;
    accepted.fd = connection;
    connections->HandleNewConnection(&accepted);
  });
  Log(Severity::kInfo,
      "listening on " + absl::StrJoin(acceptor->addresses(), ", "));
  Log(Severity::kInfo, "node " + node + ", " +
                           std::to_string(config.volumes.size()) + " volumes");

  const std::chrono::seconds expiry(config.session_expiry_seconds);
  const timespec pause{kTendEverySeconds, 0};
  while (sigtimedwait(&signals, nullptr, &pause) < 0) {
    if (errno != EAGAIN) continue;
    registry->Tend(std::chrono::steady_clock::now(), expiry);
  }
  Log(Severity::kInfo, "stopping");
  acceptor->Stop();
  server->Shutdown(std::chrono::system_clock::now() + kGrace);
  server->Wait();
  return absl::OkStatus();
}

}  // namespace snapsync
