// SPDX-License-Identifier: Apache-2.0
//
// The volumes of this agent, by name. Holds the lock that keeps a second agent
// from the same state directory.
//
// Thread-safe after construction.
#ifndef SNAPSYNC_AGENT_SESSION_REGISTRY_H_
#define SNAPSYNC_AGENT_SESSION_REGISTRY_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/config.h"
#include "agent/replica.h"
#include "agent/session_store.h"
#include "common/base/file_lock.h"

namespace snapsync {

class SessionRegistry {
 public:
  // Opens the state directory and finishes what a crash interrupted. A volume
  // that can't be recovered now is logged, and met again when it is used.
  static absl::StatusOr<std::unique_ptr<SessionRegistry>> Create(
      const AgentConfig& config);

  // The name of the volume that `text` means: a name, or the path of a
  // configured volume's device by any of its names. `text` itself when it means
  // none.
  std::string NameOf(const std::string& text) const;
  // kTargetUnsuitable when there is no such volume.
  absl::StatusOr<Replica*> Find(const std::string& volume) const;
  std::vector<std::string> names() const;

 private:
  SessionRegistry(FileLock lock, std::unique_ptr<SessionStore> store);

  const FileLock lock_;
  const std::unique_ptr<SessionStore> store_;
  std::map<std::string, std::unique_ptr<Replica>> replicas_;
  std::map<std::string, std::string> paths_;  // of the configuration, to names
};

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_SESSION_REGISTRY_H_
