// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/image_update.h"

#include <algorithm>
#include <vector>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/qcow2/format.h"
#include "common/qcow2/refcount_update.h"
#include "common/qcow2/table_writer.h"

namespace snapsync::qcow2 {
namespace {

// Counts what the two generations have not in common.
absl::Status CountChanges(ClusterStore& store, const CommittedImage& image,
                          RefcountUpdate& refcounts) {
  const Geometry& geometry = store.geometry();
  ClusterMap& map = store.map();
  const std::vector<uint64_t>& new_l1 = map.l1();
  const auto at = [](const std::vector<uint64_t>& l1, size_t i) {
    return i < l1.size() ? l1[i] : 0;
  };
  const size_t tables = std::max(image.l1.size(), new_l1.size());
  for (size_t i = 0; i < tables; ++i) {
    const uint64_t old_table = at(image.l1, i);
    const uint64_t new_table = at(new_l1, i);
    if (old_table == new_table) continue;
    std::vector<uint64_t> old_entries(geometry.table_entries());
    if (old_table != 0) {
      SNAPSYNC_RETURN_IF_ERROR(
          refcounts.Drop(old_table >> geometry.cluster_bits, 1));
      SNAPSYNC_ASSIGN_OR_RETURN(old_entries, map.ReadTable(old_table));
    }
    std::vector<uint64_t> new_entries(geometry.table_entries());
    if (new_table != 0) {
      SNAPSYNC_RETURN_IF_ERROR(
          refcounts.Add(new_table >> geometry.cluster_bits, 1));
      SNAPSYNC_ASSIGN_OR_RETURN(const auto entries, map.Table(i));
      new_entries.assign(entries.begin(), entries.end());
    }
    for (size_t j = 0; j < old_entries.size(); ++j) {
      if (old_entries[j] == new_entries[j]) continue;
      SNAPSYNC_RETURN_IF_ERROR(refcounts.DropEntry(old_entries[j]));
      SNAPSYNC_RETURN_IF_ERROR(refcounts.AddEntry(new_entries[j]));
    }
  }
  return absl::OkStatus();
}

// What is free will be written to: no table may lie there.
absl::Status CheckTablesAreUsed(const GrowingFile& file,
                                const CommittedImage& image,
                                const ClusterSet& free) {
  const Geometry& geometry = image.header.geometry;
  const auto is_free = [&](uint64_t offset, uint64_t clusters) {
    for (uint64_t i = 0; i < clusters; ++i) {
      if (free.Contains((offset >> geometry.cluster_bits) + i)) return true;
    }
    return false;
  };
  bool found = is_free(image.header.l1_offset,
                       geometry.ClustersOf(image.l1.size() * 8)) ||
               is_free(image.header.refcount_table_offset,
                       image.header.refcount_table_clusters);
  for (const auto* offsets : {&image.l1, &image.refcount_blocks}) {
    for (const uint64_t offset : *offsets) {
      found = found || (offset != 0 && is_free(offset, 1));
    }
  }
  if (!found) return absl::OkStatus();
  return Error(Reason::kBaseMismatch,
               file.name() +
                   " has a table whose refcount is 0; run a full "
                   "export");
}

absl::Status PunchAll(GrowingFile& file, const Geometry& geometry,
                      const ClusterSet& clusters) {
  for (const auto& [first, end] : clusters.runs()) {
    SNAPSYNC_RETURN_IF_ERROR(
        file.Punch({first << geometry.cluster_bits,
                    (end - first) << geometry.cluster_bits}));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ImageWriter::Base> BeginUpdate(GrowingFile& file,
                                              const CommittedImage& image,
                                              uint64_t size,
                                              uint64_t file_clusters) {
  ImageWriter::Base base;
  base.l1 = image.l1;
  base.l1.resize(image.header.geometry.L1EntriesOf(size));
  base.size = image.header.size;
  base.end = file_clusters;
  SNAPSYNC_ASSIGN_OR_RETURN(base.free,
                            FindFreeClusters(file, image, file_clusters));
  SNAPSYNC_RETURN_IF_ERROR(CheckTablesAreUsed(file, image, base.free));
  return base;
}

absl::Status FinishUpdate(ClusterStore& store, const CommittedImage& image,
                          ExportHeader header) {
  const Geometry& geometry = store.geometry();
  HostSpace& space = store.space();
  SNAPSYNC_RETURN_IF_ERROR(store.Submit().status());
  SNAPSYNC_RETURN_IF_ERROR(store.map().WriteOut());

  RefcountUpdate refcounts(
      &store, image.refcount_blocks,
      {image.header.refcount_table_offset >> geometry.cluster_bits,
       image.header.refcount_table_clusters});
  SNAPSYNC_RETURN_IF_ERROR(CountChanges(store, image, refcounts));
  SNAPSYNC_RETURN_IF_ERROR(
      refcounts.Drop(image.header.l1_offset >> geometry.cluster_bits,
                     geometry.ClustersOf(image.l1.size() * 8)));
  const std::vector<uint64_t>& l1 = store.map().l1();
  const uint64_t l1_clusters = geometry.ClustersOf(l1.size() * 8);
  const uint64_t l1_first = space.Allocate(l1_clusters);
  SNAPSYNC_RETURN_IF_ERROR(refcounts.Add(l1_first, l1_clusters));
  SNAPSYNC_RETURN_IF_ERROR(WriteTable(store, l1_first, l1, kEntryCopied));
  SNAPSYNC_ASSIGN_OR_RETURN(const Extent table, refcounts.Write());
  SNAPSYNC_RETURN_IF_ERROR(store.queue().Wait(store.queue().Submit()));

  // The last cluster may end with compressed bytes.
  GrowingFile& file = store.file();
  const uint64_t file_bytes = space.end() << geometry.cluster_bits;
  SNAPSYNC_ASSIGN_OR_RETURN(const uint64_t size, file.Size());
  if (size < file_bytes) SNAPSYNC_RETURN_IF_ERROR(file.Resize(file_bytes));
  SNAPSYNC_RETURN_IF_ERROR(file.Flush());

  header.incomplete = false;
  header.l1_entries = static_cast<uint32_t>(l1.size());
  header.l1_offset = l1_first << geometry.cluster_bits;
  header.refcount_table_offset = table.offset << geometry.cluster_bits;
  header.refcount_table_clusters = static_cast<uint32_t>(table.length);
  SNAPSYNC_RETURN_IF_ERROR(SwitchHeader(file, header));

  // What was written twice, or before a crash, and what is the old one's alone.
  ClusterSet unused = space.free();
  unused.Add(space.TakeReleased());
  unused.Add(refcounts.dropped());
  return PunchAll(file, geometry, unused);
}

absl::Status GiveBackUnused(GrowingFile& file, uint64_t file_bytes) {
  SNAPSYNC_ASSIGN_OR_RETURN(const uint64_t size, file.Size());
  if (size > file_bytes) SNAPSYNC_RETURN_IF_ERROR(file.Resize(file_bytes));
  SNAPSYNC_ASSIGN_OR_RETURN(const ExportHeader header, ReadExportHeader(file));
  const uint64_t clusters =
      header.geometry.ClustersOf(std::min(size, file_bytes));
  SNAPSYNC_ASSIGN_OR_RETURN(const CommittedImage image,
                            ReadCommittedImage(file, clusters));
  SNAPSYNC_ASSIGN_OR_RETURN(const ClusterSet free,
                            FindFreeClusters(file, image, clusters));
  return PunchAll(file, header.geometry, free);
}

}  // namespace snapsync::qcow2
