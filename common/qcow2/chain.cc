// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/chain.h"

#include <algorithm>
#include <utility>

#include "common/base/aligned_buffer.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/qcow2/metadata_check.h"

namespace snapsync::qcow2 {
namespace {

struct OpenedFile {
  Header header;
  std::unique_ptr<const Layer> layer;
};

absl::StatusOr<OpenedFile> OpenQcow2(const NumberedFile& file,
                                     FileSource& files,
                                     const ChainOptions& options,
                                     const std::function<void()>& at_work) {
  const HostFile& host = *file.file;
  AlignedBuffer start(std::min<uint64_t>(host.size(), kMaxHeaderAreaBytes));
  SNAPSYNC_RETURN_IF_ERROR(host.Read(0, start.span()));
  SNAPSYNC_ASSIGN_OR_RETURN(
      Header header, ParseHeader(start.span(), host.size(), host.name()));
  if (header.corrupt() && !options.allow_corrupt) {
    return Error(Reason::kIo,
                 host.name() +
                     ": marked as corrupt by the program that wrote it: see "
                     "what `qemu-img check` says, or allow corrupt images");
  }
  NumberedFile data_file;
  if (header.has_data_file()) {
    SNAPSYNC_ASSIGN_OR_RETURN(
        data_file, files.OpenNamed(FileSource::Role::kData, file.number,
                                   header.data_file_name));
  }
  auto tables = std::make_unique<TableReader>(host, header.cluster_size());
  SNAPSYNC_RETURN_IF_ERROR(
      CheckMetadata(header, host, data_file.file.get(), *tables, at_work));
  OpenedFile opened;
  opened.layer = std::make_unique<Layer>(header, file, std::move(data_file),
                                         std::move(tables));
  opened.header = std::move(header);
  return opened;
}

// "raw" or "qcow2".
absl::StatusOr<std::string> BackingFormat(const Header& header,
                                          const std::string& file,
                                          const ChainOptions& options) {
  std::string format = header.backing_format;
  if (format.empty()) format = options.unrecorded_backing_format;
  if (format.empty()) {
    return Error(Reason::kPermission,
                 file + ": it does not say which format its backing file " +
                     Printable(header.backing_name) +
                     " has: record it with `qemu-img rebase -u -F FORMAT -b "
                     "FILE`, or say which one it is");
  }
  if (format != "raw" && format != "qcow2") {
    return Error(Reason::kTargetUnsuitable,
                 file + ": its backing file " + Printable(header.backing_name) +
                     " has format " + Printable(format) +
                     "; only raw and qcow2 are supported: convert it with "
                     "`qemu-img convert -O qcow2` first");
  }
  return format;
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Chain>> Chain::Open(
    FileSource& files, const ChainOptions& options,
    const std::function<void()>& at_work) {
  SNAPSYNC_ASSIGN_OR_RETURN(NumberedFile file, files.OpenImage());
  std::vector<std::unique_ptr<const Layer>> layers;
  SNAPSYNC_ASSIGN_OR_RETURN(OpenedFile image,
                            OpenQcow2(file, files, options, at_work));
  const Header first = image.header;
  layers.push_back(std::move(image.layer));
  while (!image.header.backing_name.empty()) {
    const std::string& by = file.file->name();
    SNAPSYNC_ASSIGN_OR_RETURN(const std::string format,
                              BackingFormat(image.header, by, options));
    if (layers.size() == kMaxChainFiles) {
      return Error(Reason::kTargetUnsuitable,
                   by + ": a chain of more than " +
                       std::to_string(kMaxChainFiles) +
                       " files: convert it with `qemu-img convert -O qcow2` "
                       "first");
    }
    SNAPSYNC_ASSIGN_OR_RETURN(
        file, files.OpenNamed(FileSource::Role::kBacking, file.number,
                              image.header.backing_name));
    if (format == "raw") {
      layers.push_back(std::make_unique<Layer>(file));
      break;
    }
    SNAPSYNC_ASSIGN_OR_RETURN(image, OpenQcow2(file, files, options, at_work));
    layers.push_back(std::move(image.layer));
  }
  return std::unique_ptr<const Chain>(new Chain(first, std::move(layers)));
}

absl::StatusOr<Run> Chain::FindRun(uint64_t offset, uint64_t end) const {
  for (size_t index = 0; index < layers_.size(); ++index) {
    const Layer& layer = *layers_[index];
    if (offset >= layer.size()) break;
    SNAPSYNC_ASSIGN_OR_RETURN(
        Run run, layer.FindRun(offset, std::min(end, layer.size())));
    run.layer = static_cast<uint32_t>(index);
    if (run.kind != Run::Kind::kUnallocated) return run;
    end = offset + run.length;
  }
  Run run;
  run.kind = Run::Kind::kZero;
  run.length = end - offset;
  return run;
}

absl::StatusOr<uint64_t> Chain::FindData(uint64_t offset, size_t limit,
                                         std::vector<Extent>& extents) const {
  while (offset < size() && extents.size() < limit) {
    SNAPSYNC_ASSIGN_OR_RETURN(const Run run, FindRun(offset, size()));
    if (run.kind != Run::Kind::kZero) {
      if (!extents.empty() && extents.back().end() == offset) {
        extents.back().length += run.length;
      } else {
        extents.push_back({offset, run.length});
      }
    }
    offset += run.length;
  }
  return offset;
}

}  // namespace snapsync::qcow2
