// SPDX-License-Identifier: Apache-2.0
//
// Looks at finished exports: what is at a path, whether it is what was
// committed, and its contents. Writes nothing.
//
// Thread-safe: functions.
#ifndef SNAPSYNC_AGENT_TARGETS_QCOW2_EXPORT_H_
#define SNAPSYNC_AGENT_TARGETS_QCOW2_EXPORT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/targets/qcow2_target.h"
#include "agent/targets/target.h"
#include "common/base/id128.h"
#include "common/block/host_folder.h"
#include "common/qcow2/export_header.h"

namespace snapsync {

inline constexpr char kQcow2StageKind[] = "qcow2-stage";

// Where an export goes.
class ExportPlace {
 public:
  ExportPlace(const std::string& path, FolderOpener open_folder)
      : path_(path), open_folder_(std::move(open_folder)) {
    const size_t slash = path.rfind('/');
    name_ = slash == std::string::npos ? path : path.substr(slash + 1);
  }

  const std::string& path() const { return path_; }
  const std::string& name() const { return name_; }
  absl::StatusOr<std::unique_ptr<HostFolder>> Open() const;
  // Whatever names the folder has.
  absl::StatusOr<std::string> Identity() const;

 private:
  const std::string path_;
  const FolderOpener open_folder_;
  std::string name_;
};

// The facts of the export `name`, or of what is there in its place.
absl::StatusOr<TargetFacts> InspectExport(const ExportPlace& place,
                                          HostFolder& folder,
                                          const std::string& name);

// The header of a whole export of this replication. kBaseMismatch for anything
// else.
absl::StatusOr<qcow2::ExportHeader> ReadExport(HostFolder& folder,
                                               const std::string& name,
                                               const Qcow2Options& options);

// Its contents. kBusy when another process has it open.
absl::StatusOr<std::unique_ptr<BlockReader>> OpenExport(
    HostFolder& folder, const std::string& name, const Qcow2Options& options);

// OK when `name` is that generation already.
absl::Status CheckIsGeneration(HostFolder& folder, const std::string& name,
                               const Qcow2Options& options, uint64_t number,
                               const Id128& generation);

std::string MakeExportSeal(const qcow2::ExportHeader& header);
absl::Status CheckExportSeal(const std::string& seal,
                             const qcow2::ExportHeader& header,
                             const std::string& path);

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_TARGETS_QCOW2_EXPORT_H_
