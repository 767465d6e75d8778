// SPDX-License-Identifier: Apache-2.0
//
// The volumes of this agent, by name. Holds the lock that keeps a second agent
// from the same state directory.
//
// Thread-safe.
#ifndef SNAPSYNC_AGENT_SESSION_REGISTRY_H_
#define SNAPSYNC_AGENT_SESSION_REGISTRY_H_

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "agent/config.h"
#include "agent/replica.h"
#include "agent/session_store.h"
#include "common/base/file_lock.h"
#include "common/base/mutex.h"

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
  // kTargetUnsuitable when there is no such volume. An image in a folder of the
  // configuration is one from when it is first asked for.
  absl::StatusOr<Replica*> Find(const std::string& volume);
  // Without the images in folders that nobody asked for.
  std::vector<std::string> names() const;
  // See Replica::Tend().
  void Tend(std::chrono::steady_clock::time_point now,
            std::chrono::seconds limit);

 private:
  SessionRegistry(FileLock lock, std::unique_ptr<SessionStore> store,
                  AgentConfig config);
  Replica* Add(const VolumeConfig& volume)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Constant after construction.
  const FileLock lock_;
  const std::unique_ptr<SessionStore> store_;
  const AgentConfig config_;

  mutable Mutex mutex_;
  std::map<std::string, std::unique_ptr<Replica>> replicas_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_SESSION_REGISTRY_H_
