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
  return MakeThinTarget(volume.path, state_directory);
}

}  // namespace

SessionRegistry::SessionRegistry(FileLock lock,
                                 std::unique_ptr<SessionStore> store)
    : lock_(std::move(lock)), store_(std::move(store)) {}

absl::StatusOr<std::unique_ptr<SessionRegistry>> SessionRegistry::Create(
    const AgentConfig& config) {
  SNAPSYNC_RETURN_IF_ERROR(MakeFolder(config.state_directory));
  SNAPSYNC_ASSIGN_OR_RETURN(
      FileLock lock, FileLock::Acquire(config.state_directory + "/agent.lock"));
  SNAPSYNC_ASSIGN_OR_RETURN(std::unique_ptr<SessionStore> store,
                            OpenFileSessionStore(config.state_directory));
  std::unique_ptr<SessionRegistry> registry(
      new SessionRegistry(std::move(lock), std::move(store)));
  for (const VolumeConfig& volume : config.volumes) {
    ReplicaOptions options;
    options.volume = volume.name;
    options.kind = volume.kind;
    options.keep = volume.keep;
    options.unix_seconds = [] { return int64_t{std::time(nullptr)}; };
    auto replica = std::make_unique<Replica>(
        options, MakeTarget(volume, config.state_directory),
        registry->store_.get());
    if (const absl::Status status = replica->Recover(); !status.ok()) {
      Log(Severity::kError, "volume " + volume.name +
                                ": the interrupted commit could not be "
                                "finished yet: " +
                                std::string(MessageOf(status)));
    }
    registry->replicas_.emplace(volume.name, std::move(replica));
    registry->paths_.emplace(volume.path, volume.name);
  }
  return registry;
}

std::string SessionRegistry::NameOf(const std::string& text) const {
  if (text.empty() || text[0] != '/') return text;
  // /dev/vg/lv and /dev/mapper/vg-lv are links to the same node.
  const auto canonical = [](const std::string& path) {
    std::error_code error;
    const auto real = std::filesystem::weakly_canonical(path, error);
    return error ? path : real.string();
  };
  for (const auto& [path, name] : paths_) {
    if (path == text || canonical(path) == canonical(text)) return name;
  }
  return text;
}

absl::StatusOr<Replica*> SessionRegistry::Find(
    const std::string& volume) const {
  const auto found = replicas_.find(volume);
  if (found == replicas_.end()) {
    return Error(Reason::kTargetUnsuitable,
                 "this agent has no volume \"" + volume +
                     "\"; its configuration lists them in [[volume]]");
  }
  return found->second.get();
}

std::vector<std::string> SessionRegistry::names() const {
  std::vector<std::string> names;
  for (const auto& [name, replica] : replicas_) names.push_back(name);
  return names;
}

}  // namespace snapsync
