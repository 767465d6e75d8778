// SPDX-License-Identifier: Apache-2.0
#include "agent/targets/qcow2_fold.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "agent/targets/qcow2_shadow.h"
#include "agent/targets/qcow2_stage.h"
#include "common/base/aligned_buffer.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/qcow2/cluster_entry.h"
#include "common/qcow2/cluster_store.h"
#include "common/qcow2/committed_image.h"
#include "common/qcow2/image_update.h"
#include "common/qcow2/image_writer.h"
#include "common/qcow2/locks.h"
#include "common/qcow2/table_writer.h"

namespace snapsync {
namespace {

// Writes all clusters that `overlay` has into `writer`.
absl::Status CopyClusters(qcow2::ClusterStore& overlay, uint64_t size,
                          qcow2::ImageWriter& writer) {
  const qcow2::Geometry& geometry = overlay.geometry();
  AlignedBuffer buffer(geometry.cluster_bytes());
  const uint64_t tables = overlay.map().l1().size();
  for (uint64_t table = 0; table < tables; ++table) {
    SNAPSYNC_ASSIGN_OR_RETURN(const auto span, overlay.map().Table(table));
    // Reading clusters may put the table out of memory.
    const std::vector<uint64_t> entries(span.begin(), span.end());
    for (uint64_t i = 0; i < entries.size(); ++i) {
      const uint64_t cluster = table * geometry.table_entries() + i;
      const uint64_t offset = cluster << geometry.cluster_bits;
      if (offset >= size || entries[i] == qcow2::kUnallocatedEntry) continue;
      const uint64_t length = std::min(geometry.cluster_bytes(), size - offset);
      if (entries[i] == qcow2::kZeroEntry) {
        SNAPSYNC_RETURN_IF_ERROR(writer.Zero({offset, length}));
        continue;
      }
      SNAPSYNC_RETURN_IF_ERROR(overlay.Read(cluster, buffer.span()));
      const WriteOperation write{offset, buffer.span().first(length)};
      SNAPSYNC_RETURN_IF_ERROR(writer.Write({&write, 1}));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<GrowingFile>> MustOpen(
    HostFolder& folder, const std::string& name, HostFolder::Access access) {
  SNAPSYNC_ASSIGN_OR_RETURN(auto file, folder.Open(name, access));
  if (file != nullptr) return file;
  return Error(Reason::kBaseMismatch,
               folder.path() + name + " does not exist any more");
}

// What of a committed file is read and written, with its size.
absl::StatusOr<uint64_t> ClustersOf(GrowingFile& file) {
  SNAPSYNC_ASSIGN_OR_RETURN(const qcow2::ExportHeader header,
                            qcow2::ReadExportHeader(file));
  SNAPSYNC_ASSIGN_OR_RETURN(const uint64_t bytes, file.Size());
  return header.geometry.ClustersOf(bytes);
}

absl::Status WriteInto(const Qcow2Options& options,
                       std::unique_ptr<GrowingFile> full,
                       GrowingFile& overlay) {
  SNAPSYNC_ASSIGN_OR_RETURN(const uint64_t overlay_clusters,
                            ClustersOf(overlay));
  SNAPSYNC_ASSIGN_OR_RETURN(
      const qcow2::CommittedImage above,
      qcow2::ReadCommittedImage(overlay, overlay_clusters));
  SNAPSYNC_ASSIGN_OR_RETURN(const uint64_t full_clusters, ClustersOf(*full));
  SNAPSYNC_ASSIGN_OR_RETURN(const qcow2::CommittedImage below,
                            qcow2::ReadCommittedImage(*full, full_clusters));
  const uint64_t size = above.header.size;
  SNAPSYNC_ASSIGN_OR_RETURN(
      auto base, qcow2::BeginUpdate(*full, below, size, full_clusters));

  qcow2::StageHead head;
  head.geometry = below.header.geometry;
  if (CheckCompression(options, below.header.compression_type, full->name())
          .ok()) {
    head.compression = static_cast<uint32_t>(options.compression);
  }
  SNAPSYNC_ASSIGN_OR_RETURN(
      const auto writer,
      qcow2::ImageWriter::Open(
          StoreOptionsOf(options, head, below.header.compression_type, nullptr),
          size, std::move(base), std::move(full), nullptr));
  qcow2::StoreOptions reading;
  reading.geometry = above.header.geometry;
  reading.compression_type = above.header.compression_type;
  reading.write_threads = 0;
  qcow2::ClusterStore store(
      reading, &overlay, above.l1,
      qcow2::HostSpace(qcow2::ClusterSet(), overlay_clusters));
  SNAPSYNC_RETURN_IF_ERROR(CopyClusters(store, size, *writer));

  qcow2::ExportHeader header = below.header;
  header.size = size;
  header.identity = above.header.identity;
  return writer->Finish([&](qcow2::ClusterStore& written) {
    return qcow2::FinishUpdate(written, below, header);
  });
}

}  // namespace

absl::Status FoldOverlay(const Qcow2Options& options, HostFolder& folder,
                         const std::string& full, const std::string& overlay) {
  SNAPSYNC_ASSIGN_OR_RETURN(
      const auto above, MustOpen(folder, overlay, HostFolder::Access::kRead));
  SNAPSYNC_ASSIGN_OR_RETURN(auto below,
                            MustOpen(folder, full, HostFolder::Access::kWrite));
  SNAPSYNC_RETURN_IF_ERROR(CheckNotOpen(*below));
  SNAPSYNC_ASSIGN_OR_RETURN(
      const auto lock,
      qcow2::ImageLock::ForWriting(below->descriptor(), below->name()));
  SNAPSYNC_ASSIGN_OR_RETURN(const qcow2::ExportHeader above_header,
                            qcow2::ReadExportHeader(*above));
  SNAPSYNC_ASSIGN_OR_RETURN(const qcow2::ExportHeader below_header,
                            qcow2::ReadExportHeader(*below));
  if (below_header.identity.generation == above_header.identity.generation) {
    // Folded by an earlier call, whose last sector may not be durable yet.
    SNAPSYNC_RETURN_IF_ERROR(qcow2::SwitchHeader(*below, below_header));
  } else {
    SNAPSYNC_RETURN_IF_ERROR(WriteInto(options, std::move(below), *above));
  }
  SNAPSYNC_RETURN_IF_ERROR(
      folder.Rename(full, overlay, HostFolder::IfThere::kReplace));
  return folder.Flush();
}

}  // namespace snapsync
