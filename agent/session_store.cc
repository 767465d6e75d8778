// SPDX-License-Identifier: Apache-2.0
#include "agent/session_store.h"

#include <sys/stat.h>

#include <string>
#include <utility>

#include "absl/strings/str_replace.h"
#include "common/base/atomic_file.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/block/file_device.h"

namespace snapsync {
namespace {

class FileSessionStore final : public SessionStore {
 public:
  explicit FileSessionStore(std::string folder) : folder_(std::move(folder)) {}

  absl::StatusOr<std::optional<TargetRecord>> Load(
      const std::string& volume) override {
    // Whoever renamed the file may have died before it made the name durable.
    SNAPSYNC_RETURN_IF_ERROR(SyncFolder(folder_));
    const std::string path = PathOf(volume, ".state");
    const absl::StatusOr<std::string> contents = ReadWholeFile(path);
    if (absl::IsNotFound(contents.status())) return std::nullopt;
    if (!contents.ok()) return contents.status();
    SNAPSYNC_ASSIGN_OR_RETURN(TargetRecord record,
                              DecodeTargetRecord(path, *contents));
    return record;
  }

  absl::Status Save(const std::string& volume,
                    const TargetRecord& record) override {
    return WriteFileAtomically(PathOf(volume, ".state"),
                               EncodeTargetRecord(record));
  }

  absl::StatusOr<std::unique_ptr<Journal>> OpenJournal(
      const std::string& volume, const Id128& id) override {
    const std::string path = PathOf(volume, ".journal");
    struct stat facts {};
    if (::stat(path.c_str(), &facts) != 0 ||
        facts.st_size != static_cast<off_t>(Journal::kBytes)) {
      // Real zeroes, not a hole: appending must not need new space.
      SNAPSYNC_RETURN_IF_ERROR(
          WriteFileAtomically(path, std::string(Journal::kBytes, '\0')));
    }
    SNAPSYNC_ASSIGN_OR_RETURN(auto reader, OpenFileReader(path));
    SNAPSYNC_ASSIGN_OR_RETURN(auto writer, OpenFileWriter(path, {}));
    return Journal::Open(std::move(reader), std::move(writer), id);
  }

  absl::StatusOr<ManifestPlace> OpenManifestPlace(
      const std::string& volume) override {
    ManifestPlace place;
    SNAPSYNC_ASSIGN_OR_RETURN(place.folder, OpenHostFolder(folder_ + "/"));
    place.manifest = NameOf(volume) + ".manifest";
    place.log = NameOf(volume) + ".manifest-log";
    return place;
  }

 private:
  // An image in a folder has a slash in its name.
  static std::string NameOf(const std::string& volume) {
    return absl::StrReplaceAll(volume, {{"/", "%2F"}});
  }
  std::string PathOf(const std::string& volume, const char* suffix) const {
    return folder_ + "/" + NameOf(volume) + suffix;
  }

  const std::string folder_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SessionStore>> OpenFileSessionStore(
    const std::string& state_directory) {
  const std::string folder = state_directory + "/targets";
  SNAPSYNC_RETURN_IF_ERROR(MakeFolder(folder));
  return std::make_unique<FileSessionStore>(folder);
}

}  // namespace snapsync
