// SPDX-License-Identifier: Apache-2.0
//
// Who may do what: the [[client]] entries of the configuration. What is not
// allowed there is refused, with the same words whether the volume exists or
// not.
//
// Thread-safe: constant after construction.
#ifndef SNAPSYNC_AGENT_PEER_POLICY_H_
#define SNAPSYNC_AGENT_PEER_POLICY_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "agent/config.h"

namespace snapsync {

class PeerPolicy {
 public:
  explicit PeerPolicy(std::vector<ClientConfig> clients)
      : clients_(std::move(clients)) {}

  // OK, or kPermission.
  absl::Status Check(const std::string& peer, const std::string& right,
                     const std::string& volume) const;
  // There is an entry for `peer`, whatever it allows.
  bool Knows(const std::string& peer) const;

 private:
  const std::vector<ClientConfig> clients_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_PEER_POLICY_H_
