// SPDX-License-Identifier: Apache-2.0
//
// Where the records and journals of the targets live: a port, so that the
// simulation can lose power under it. The real one keeps files in the agent's
// state directory:
//
//   STATE/targets/VOLUME.state     the TargetRecord
//   STATE/targets/VOLUME.journal   the Journal
//   STATE/targets/VOLUME.manifest, VOLUME.manifest-log
//
// Thread-safe for different volumes; one thread at a time for one volume.
#ifndef SNAPSYNC_AGENT_SESSION_STORE_H_
#define SNAPSYNC_AGENT_SESSION_STORE_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "agent/journal.h"
#include "agent/target_record.h"
#include "common/block/host_folder.h"

namespace snapsync {

class SessionStore {
 public:
  virtual ~SessionStore() = default;

  // Nothing when the volume has no record yet. kIo when it is damaged: the
  // volume must not be touched then. What is returned is durable, even if the
  // Save() that wrote it failed or was killed.
  virtual absl::StatusOr<std::optional<TargetRecord>> Load(
      const std::string& volume) = 0;
  // Durable when it returns OK.
  virtual absl::Status Save(const std::string& volume,
                            const TargetRecord& record) = 0;
  // The journal of the volume, for the session `id`. Made if it is missing.
  virtual absl::StatusOr<std::unique_ptr<Journal>> OpenJournal(
      const std::string& volume, const Id128& id) = 0;

  // Where the manifest of the volume and its log are.
  struct ManifestPlace {
    std::unique_ptr<HostFolder> folder;  // null: none are kept
    std::string manifest;                // names in it
    std::string log;
  };
  virtual absl::StatusOr<ManifestPlace> OpenManifestPlace(
      const std::string& /*volume*/) {
    return ManifestPlace{};
  }
};

// Makes the folders that are missing.
absl::StatusOr<std::unique_ptr<SessionStore>> OpenFileSessionStore(
    const std::string& state_directory);

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_SESSION_STORE_H_
