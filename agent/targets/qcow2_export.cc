// SPDX-License-Identifier: Apache-2.0
#include "agent/targets/qcow2_export.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <vector>

#include "agent/targets/named_values.h"
#include "agent/targets/qcow2_stage.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/block/device_identity.h"
#include "common/qcow2/committed_image.h"
#include "common/qcow2/header.h"
#include "common/qcow2/image.h"

namespace snapsync {
namespace {

constexpr char kExportSeal[] = "qcow2-seal";

// What a guest would see of it: a foreign file may be anything.
absl::StatusOr<uint64_t> DiskSizeOf(GrowingFile& file) {
  SNAPSYNC_ASSIGN_OR_RETURN(const uint64_t bytes, file.Size());
  std::vector<std::byte> first(
      std::min<uint64_t>(bytes, qcow2::kMaxHeaderAreaBytes));
  SNAPSYNC_RETURN_IF_ERROR(file.ReadCached(0, first));
  const auto header = qcow2::ParseHeader(first, bytes, file.name());
  return header.ok() ? header->disk_size() : bytes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<HostFolder>> ExportPlace::Open() const {
  if (name_.empty() || name_ == "." || name_ == "..") {
    return Error(Reason::kTargetUnsuitable, path_ + " is no file's name");
  }
  return open_folder_();
}

absl::StatusOr<std::string> ExportPlace::Identity() const {
  const std::string folder = path_.substr(0, path_.size() - name_.size());
  char* real = ::realpath(folder.empty() ? "." : folder.c_str(), nullptr);
  if (real == nullptr) {
    return PosixError(errno, "folder " + folder + " can't be resolved");
  }
  const std::string resolved = real;
  std::free(real);
  return "qcow2:" + (resolved == "/" ? "" : resolved) + "/" + name_;
}

absl::StatusOr<TargetFacts> InspectExport(const ExportPlace& place,
                                          HostFolder& folder,
                                          const std::string& name) {
  TargetFacts facts;
  facts.grows = true;
  SNAPSYNC_ASSIGN_OR_RETURN(facts.identity, place.Identity());
  SNAPSYNC_ASSIGN_OR_RETURN(const auto file,
                            folder.Open(name, HostFolder::Access::kRead));
  if (file == nullptr) {
    facts.blank = true;
    return facts;
  }
  SNAPSYNC_RETURN_IF_ERROR(CheckNotOpen(*file));
  facts.place = PlaceOf(file->name());
  SNAPSYNC_ASSIGN_OR_RETURN(facts.size, DiskSizeOf(*file));
  // Nothing but holes: nobody can miss that.
  facts.blank = ::lseek(file->descriptor(), 0, SEEK_DATA) < 0 && errno == ENXIO;
  return facts;
}

absl::StatusOr<qcow2::ExportHeader> ReadExport(HostFolder& folder,
                                               const std::string& name,
                                               const Qcow2Options& options) {
  SNAPSYNC_ASSIGN_OR_RETURN(const auto file,
                            folder.Open(name, HostFolder::Access::kRead));
  if (file == nullptr) {
    return Error(
        Reason::kBaseMismatch,
        folder.path() + name + " does not exist any more; run a full export");
  }
  SNAPSYNC_ASSIGN_OR_RETURN(qcow2::ExportHeader header,
                            qcow2::ReadExportHeader(*file));
  if (header.incomplete) {
    return Error(Reason::kBaseMismatch,
                 file->name() + " is unfinished; run a full export");
  }
  if (header.identity.replication != options.replication) {
    return Error(Reason::kBaseMismatch,
                 file->name() + " belongs to replication \"" +
                     qcow2::Printable(header.identity.replication) +
                     "\", not to \"" + options.replication +
                     "\"; run a full export");
  }
  return header;
}

absl::StatusOr<std::unique_ptr<BlockReader>> OpenExport(
    HostFolder& folder, const std::string& name, const Qcow2Options& options) {
  SNAPSYNC_RETURN_IF_ERROR(ReadExport(folder, name, options).status());
  SNAPSYNC_ASSIGN_OR_RETURN(const auto file,
                            folder.Open(name, HostFolder::Access::kRead));
  if (file == nullptr) {
    return Error(Reason::kBaseMismatch,
                 folder.path() + name + " does not exist any more");
  }
  SNAPSYNC_RETURN_IF_ERROR(CheckNotOpen(*file));
  return qcow2::OpenImage(file->name(), qcow2::ImageOptions());
}

absl::Status CheckIsGeneration(HostFolder& folder, const std::string& name,
                               const Qcow2Options& options, uint64_t number,
                               const Id128& generation) {
  SNAPSYNC_ASSIGN_OR_RETURN(const qcow2::ExportHeader header,
                            ReadExport(folder, name, options));
  if (header.identity.generation == generation &&
      header.identity.number == number) {
    return absl::OkStatus();
  }
  return NoStage(folder.path() + name);
}

std::string MakeExportSeal(const qcow2::ExportHeader& header) {
  return NamedValues(kExportSeal)
      .Set("generation", header.identity.generation.ToString())
      .Set("number", header.identity.number)
      .Set("size", header.size)
      .ToString();
}

absl::Status CheckExportSeal(const std::string& seal,
                             const qcow2::ExportHeader& header,
                             const std::string& path) {
  SNAPSYNC_ASSIGN_OR_RETURN(const NamedValues values,
                            NamedValues::Parse(kExportSeal, seal));
  if (values.Text("generation") == header.identity.generation.ToString() &&
      values.Number("number") == header.identity.number &&
      values.Number("size") == header.size) {
    return absl::OkStatus();
  }
  return Error(Reason::kBaseMismatch,
               path + " holds generation " +
                   header.identity.generation.ToString() +
                   ", which is not the one that the last sync left; run a "
                   "full export");
}

}  // namespace snapsync
