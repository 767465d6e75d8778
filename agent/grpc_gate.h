// SPDX-License-Identifier: Apache-2.0
//
// Who calls, and whether they may: the certificate's name, the rights of the
// configuration, and tickets. Every call of every service comes through here.
//
// Thread-safe.
#ifndef SNAPSYNC_AGENT_GRPC_GATE_H_
#define SNAPSYNC_AGENT_GRPC_GATE_H_

#include <grpcpp/server_context.h>

#include <string>

#include "absl/status/statusor.h"
#include "agent/peer_policy.h"
#include "agent/session_registry.h"
#include "agent/tickets.h"
#include "common/base/id128.h"

namespace snapsync {

struct Caller {
  std::string peer;    // the name in the certificate
  std::string volume;  // the name in the configuration
  Replica* replica = nullptr;
  std::string ticket;  // empty: the caller has the right itself
};

class GrpcGate {
 public:
  // All must outlive it. `node`: the name in this agent's own certificate,
  // which may do everything here.
  GrpcGate(SessionRegistry* registry, const PeerPolicy* policy,
           Tickets* tickets, std::string node)
      : registry_(registry),
        policy_(policy),
        tickets_(tickets),
        node_(std::move(node)) {}

  // Whether the caller has `right` on `volume` (a name or a path), or shows a
  // ticket for it (right "receive" only). `generation` of an opened session.
  absl::StatusOr<Caller> Admit(const grpc::ServerContext& context,
                               const std::string& right,
                               const std::string& volume,
                               const Id128& generation = {}) const;

 private:
  SessionRegistry* const registry_;
  const PeerPolicy* const policy_;
  Tickets* const tickets_;
  const std::string node_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_GRPC_GATE_H_
