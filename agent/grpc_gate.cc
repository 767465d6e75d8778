// SPDX-License-Identifier: Apache-2.0
#include "agent/grpc_gate.h"

#include <chrono>

#include "common/base/status_macros.h"
#include "common/wire/limits.h"
#include "common/wire/tls.h"

namespace snapsync {

absl::StatusOr<Caller> GrpcGate::Admit(const grpc::ServerContext& context,
                                       const std::string& right,
                                       const std::string& volume,
                                       const Id128& generation) const {
  Caller caller;
  SNAPSYNC_ASSIGN_OR_RETURN(caller.peer,
                            wire::PeerName(*context.auth_context()));
  caller.volume = registry_->NameOf(volume);
  absl::Status allowed = policy_->Check(caller.peer, right, caller.volume);
  if (!allowed.ok() && caller.peer == node_ && right != "receive") {
    allowed = absl::OkStatus();
  }
  const auto shown = context.client_metadata().find(kTicketHeader);
  // A ticket is for a node that the configuration knows.
  if (!allowed.ok() && right == "receive" &&
      shown != context.client_metadata().end() && policy_->Knows(caller.peer)) {
    caller.ticket.assign(shown->second.data(), shown->second.size());
    if (tickets_->Check(caller.ticket, caller.peer, caller.volume, generation,
                        std::chrono::steady_clock::now())) {
      allowed = absl::OkStatus();
    }
  }
  SNAPSYNC_RETURN_IF_ERROR(allowed);
  SNAPSYNC_ASSIGN_OR_RETURN(caller.replica, registry_->Find(caller.volume));
  return caller;
}

}  // namespace snapsync
