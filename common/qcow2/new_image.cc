// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/new_image.h"

#include <algorithm>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "common/qcow2/format.h"
#include "common/qcow2/refcount_window.h"
#include "common/qcow2/table_writer.h"

namespace snapsync::qcow2 {
namespace {

// Where everything but data and L2 tables lies. Runs of host clusters.
struct Layout {
  Extent l1;
  Extent blocks;
  Extent table;
};

absl::StatusOr<Layout> Arrange(ClusterStore& store) {
  const Geometry& geometry = store.geometry();
  HostSpace& space = store.space();
  Layout layout;
  layout.l1.length = geometry.ClustersOf(store.map().l1().size() * 8);
  layout.l1.offset = space.Allocate(layout.l1.length);
  // Blocks count themselves, and the table that names them.
  for (;;) {
    const uint64_t all =
        space.end() + layout.blocks.length + layout.table.length;
    const uint64_t blocks =
        (all + geometry.block_entries() - 1) / geometry.block_entries();
    const uint64_t table = geometry.ClustersOf(blocks * 8);
    if (blocks == layout.blocks.length && table == layout.table.length) break;
    layout.blocks.length = blocks;
    layout.table.length = table;
  }
  if (layout.table.length * geometry.cluster_bytes() >
      std::max(Geometry::kMaxRefcountTableBytes, geometry.cluster_bytes())) {
    return Error(Reason::kTargetUnsuitable,
                 store.file().name() + ": " + std::to_string(space.end()) +
                     " clusters of " + FormatBytes(geometry.cluster_bytes()) +
                     " are too many for the format; choose larger ones");
  }
  layout.blocks.offset = space.AllocateAtEnd(layout.blocks.length);
  layout.table.offset = space.AllocateAtEnd(layout.table.length);
  return layout;
}

// Counts what refers to the host clusters of `window`, and queues their blocks.
absl::Status WriteRefcounts(ClusterStore& store, const Layout& layout,
                            RefcountWindow& window) {
  const Geometry& geometry = store.geometry();
  SNAPSYNC_RETURN_IF_ERROR(window.AddOwned(0, 1));
  for (const Extent& run : {layout.l1, layout.blocks, layout.table}) {
    SNAPSYNC_RETURN_IF_ERROR(window.AddOwned(run.offset, run.length));
  }
  ClusterMap& map = store.map();
  for (uint64_t i = 0; i < map.l1().size(); ++i) {
    if (map.l1()[i] == 0) continue;
    SNAPSYNC_RETURN_IF_ERROR(
        window.AddOwned(map.l1()[i] >> geometry.cluster_bits, 1));
    SNAPSYNC_ASSIGN_OR_RETURN(const auto entries, map.Table(i));
    SNAPSYNC_RETURN_IF_ERROR(window.AddTable(entries));
  }
  for (uint64_t at = window.first(); at < window.end();
       at += geometry.block_entries()) {
    const uint64_t host = layout.blocks.offset + at / geometry.block_entries();
    SNAPSYNC_RETURN_IF_ERROR(store.queue().Add(host << geometry.cluster_bits,
                                               window.EncodeBlock(at)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status BeginNewImage(GrowingFile& file, const ExportHeader& header) {
  SNAPSYNC_RETURN_IF_ERROR(file.WriteCached(0, EncodeHeader(header)));
  return file.Flush();
}

absl::Status FinishNewImage(ClusterStore& store, ExportHeader header,
                            uint64_t window_clusters) {
  const Geometry& geometry = store.geometry();
  SNAPSYNC_RETURN_IF_ERROR(store.Submit().status());
  SNAPSYNC_RETURN_IF_ERROR(store.map().WriteOut());
  SNAPSYNC_ASSIGN_OR_RETURN(const Layout layout, Arrange(store));
  const uint64_t end = store.space().end();
  for (uint64_t first = 0; first < end; first += window_clusters) {
    RefcountWindow window(geometry, first,
                          std::min(window_clusters, end - first));
    SNAPSYNC_RETURN_IF_ERROR(WriteRefcounts(store, layout, window));
  }
  std::vector<uint64_t> blocks(layout.blocks.length);
  for (uint64_t i = 0; i < blocks.size(); ++i) {
    blocks[i] = (layout.blocks.offset + i) << geometry.cluster_bits;
  }
  SNAPSYNC_RETURN_IF_ERROR(WriteTable(store, layout.table.offset, blocks, 0));
  SNAPSYNC_RETURN_IF_ERROR(
      WriteTable(store, layout.l1.offset, store.map().l1(), kEntryCopied));
  SNAPSYNC_RETURN_IF_ERROR(store.queue().Wait(store.queue().Submit()));

  // What was written before a crash, or twice, and is referred to by nothing.
  GrowingFile& file = store.file();
  store.space().Reuse(store.space().TakeReleased());
  SNAPSYNC_RETURN_IF_ERROR(file.Resize(end << geometry.cluster_bits));
  for (const auto& [first, run_end] : store.space().free().runs()) {
    SNAPSYNC_RETURN_IF_ERROR(
        file.Punch({first << geometry.cluster_bits,
                    (run_end - first) << geometry.cluster_bits}));
  }
  SNAPSYNC_RETURN_IF_ERROR(file.Flush());

  header.incomplete = false;
  header.l1_entries = static_cast<uint32_t>(store.map().l1().size());
  header.l1_offset = layout.l1.offset << geometry.cluster_bits;
  header.refcount_table_offset = layout.table.offset << geometry.cluster_bits;
  header.refcount_table_clusters = static_cast<uint32_t>(layout.table.length);
  return SwitchHeader(file, header);
}

}  // namespace snapsync::qcow2
