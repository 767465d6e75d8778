// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/table_writer.h"

#include <algorithm>
#include <vector>

#include "common/base/status_macros.h"
#include "common/qcow2/format.h"

namespace snapsync::qcow2 {

absl::Status WriteTable(ClusterStore& store, uint64_t host_cluster,
                        std::span<const uint64_t> offsets, uint64_t flags) {
  const Geometry& geometry = store.geometry();
  while (!offsets.empty()) {
    const auto part = offsets.first(
        std::min<uint64_t>(offsets.size(), geometry.table_entries()));
    std::vector<std::byte> bytes(geometry.cluster_bytes());
    for (size_t i = 0; i < part.size(); ++i) {
      if (part[i] != 0) StoreBig(bytes.data() + i * 8, part[i] | flags);
    }
    SNAPSYNC_RETURN_IF_ERROR(
        store.queue().Add(host_cluster << geometry.cluster_bits, bytes));
    offsets = offsets.subspan(part.size());
    ++host_cluster;
  }
  return absl::OkStatus();
}

absl::Status SwitchHeader(GrowingFile& file, const ExportHeader& header) {
  const std::vector<std::byte> area = EncodeHeader(header);
  SNAPSYNC_RETURN_IF_ERROR(
      file.WriteCached(0, std::span(area).first(kHeaderSectorBytes)));
  return file.Flush();
}

}  // namespace snapsync::qcow2
