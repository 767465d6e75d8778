// SPDX-License-Identifier: Apache-2.0
#include "agent/peer_policy.h"

#include <algorithm>

#include "common/base/error.h"

namespace snapsync {
namespace {

bool Matches(const std::string& pattern, const std::string& volume) {
  if (!pattern.empty() && pattern.back() == '*') {
    return volume.compare(0, pattern.size() - 1, pattern, 0,
                          pattern.size() - 1) == 0;
  }
  return pattern == volume;
}

}  // namespace

bool PeerPolicy::Knows(const std::string& peer) const {
  return std::any_of(
      clients_.begin(), clients_.end(),
      [&](const ClientConfig& client) { return client.name == peer; });
}

absl::Status PeerPolicy::Check(const std::string& peer,
                               const std::string& right,
                               const std::string& volume) const {
  for (const ClientConfig& client : clients_) {
    if (client.name != peer ||
        std::find(client.allow.begin(), client.allow.end(), right) ==
            client.allow.end()) {
      continue;
    }
    if (std::any_of(client.volumes.begin(), client.volumes.end(),
                    [&](const std::string& pattern) {
                      return Matches(pattern, volume);
                    })) {
      return absl::OkStatus();
    }
  }
  return Error(Reason::kPermission,
               "node \"" + peer + "\" has no right \"" + right +
                   "\" on a volume \"" + volume +
                   "\" here; the agent's configuration grants it in "
                   "[[client]]");
}

}  // namespace snapsync
