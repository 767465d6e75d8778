// SPDX-License-Identifier: Apache-2.0
#include "agent/session_registry.h"

#include <ctime>
#include <filesystem>
#include <utility>

#include "agent/targets/target.h"
#include "common/base/atomic_file.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace snapsync {
namespace {

std::unique_ptr<Target> MakeTarget(const VolumeConfig& volume,
                                   const std::string& state_directory) {
  if (volume.kind == "block") return MakeBlockTarget(volume.path);
  if (volume.kind == "file") return MakeFileTarget(volume.path);
  if (volume.kind == "qcow2") return MakeImageTarget(volume.path);
  return MakeThinTarget(volume.path, state_directory);
}

}  // namespace

SessionRegistry::SessionRegistry(FileLock lock,
                                 std::unique_ptr<SessionStore> store,
                                 AgentConfig config)
    : lock_(std::move(lock)),
      store_(std::move(store)),
      config_(std::move(config)) {}

absl::StatusOr<std::unique_ptr<SessionRegistry>> SessionRegistry::Create(
    const AgentConfig& config) {
  SNAPSYNC_RETURN_IF_ERROR(MakeFolder(config.state_directory));
  SNAPSYNC_ASSIGN_OR_RETURN(
      FileLock lock, FileLock::Acquire(config.state_directory + "/agent.lock"));
  SNAPSYNC_ASSIGN_OR_RETURN(std::unique_ptr<SessionStore> store,
                            OpenFileSessionStore(config.state_directory));
  std::unique_ptr<SessionRegistry> registry(
      new SessionRegistry(std::move(lock), std::move(store), config));
  const MutexLock held(&registry->mutex_);
  for (const VolumeConfig& volume : config.volumes) {
    if (!volume.folder()) registry->Add(volume);
  }
  return registry;
}

Replica* SessionRegistry::Add(const VolumeConfig& volume) {
  ReplicaOptions options;
  options.volume = volume.name;
  options.kind = volume.kind;
  options.keep = volume.keep;
  options.manifest = config_.manifests;
  options.unix_seconds = [] { return int64_t{std::time(nullptr)}; };
  auto replica = std::make_unique<Replica>(
      options, MakeTarget(volume, config_.state_directory), store_.get());
  if (const absl::Status status = replica->Recover(); !status.ok()) {
    Log(Severity::kError, "volume " + volume.name +
                              ": the interrupted commit could not be "
                              "finished yet: " +
                              std::string(MessageOf(status)));
  }
  return replicas_.emplace(volume.name, std::move(replica)).first->second.get();
}

std::string SessionRegistry::NameOf(const std::string& text) const {
  if (text.empty() || text[0] != '/') return text;
  // /dev/vg/lv and /dev/mapper/vg-lv are links to the same node.
  const auto canonical = [](const std::string& path) {
    std::error_code error;
    const auto real = std::filesystem::weakly_canonical(path, error);
    return error ? path : real.string();
  };
  const size_t slash = text.rfind('/') + 1;
  for (const VolumeConfig& volume : config_.volumes) {
    if (volume.folder()) {
      if (canonical(volume.path) == canonical(text.substr(0, slash))) {
        return volume.name + "/" + text.substr(slash);
      }
    } else if (volume.path == text ||
               canonical(volume.path) == canonical(text)) {
      return volume.name;
    }
  }
  return text;
}

absl::StatusOr<Replica*> SessionRegistry::Find(const std::string& volume) {
  const MutexLock lock(&mutex_);
  if (const auto found = replicas_.find(volume); found != replicas_.end()) {
    return found->second.get();
  }
  const size_t slash = volume.find('/');
  for (const VolumeConfig& folder : config_.volumes) {
    if (slash == std::string::npos || !folder.folder() ||
        folder.name != volume.substr(0, slash)) {
      continue;
    }
    SNAPSYNC_ASSIGN_OR_RETURN(const VolumeConfig image,
                              ImageInFolder(folder, volume.substr(slash + 1)));
    return Add(image);
  }
  return Error(Reason::kTargetUnsuitable,
               "this agent has no volume \"" + volume +
                   "\"; its configuration lists them in [[volume]]");
}

void SessionRegistry::Tend(std::chrono::steady_clock::time_point now,
                           std::chrono::seconds limit) {
  std::vector<std::pair<std::string, Replica*>> replicas;
  {
    const MutexLock lock(&mutex_);
    for (const auto& [name, replica] : replicas_) {
      replicas.emplace_back(name, replica.get());
    }
  }
  for (const auto& [name, replica] : replicas) {
    if (absl::Status s = replica->Tend(now, limit); !s.ok()) {
      Log(Severity::kWarning,
          "volume " + name + ": what is under way there could not be ended: " +
              std::string(MessageOf(s)));
    }
  }
}

std::vector<std::string> SessionRegistry::names() const {
  const MutexLock lock(&mutex_);
  std::vector<std::string> names;
  for (const auto& [name, replica] : replicas_) names.push_back(name);
  return names;
}

}  // namespace snapsync
