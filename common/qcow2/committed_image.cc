// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/committed_image.h"

#include <algorithm>
#include <array>
#include <string>

#include "common/base/aligned_buffer.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/qcow2/format.h"

namespace snapsync::qcow2 {
namespace {

absl::Status Damaged(const GrowingFile& file, const std::string& what) {
  return Error(Reason::kBaseMismatch,
               file.name() + ": " + what +
                   " is not as an export leaves it; run a full export");
}

}  // namespace

absl::StatusOr<ExportHeader> ReadExportHeader(GrowingFile& file) {
  SNAPSYNC_ASSIGN_OR_RETURN(const uint64_t size, file.Size());
  std::array<std::byte, kHeaderAreaBytes> area{};
  SNAPSYNC_RETURN_IF_ERROR(file.ReadCached(
      0, std::span(area).first(std::min<uint64_t>(size, area.size()))));
  return DecodeHeader(area, file.name());
}

absl::StatusOr<std::vector<uint64_t>> ReadOffsets(
    GrowingFile& file, const Geometry& geometry, uint64_t offset,
    uint64_t entries, uint64_t flags, uint64_t file_clusters) {
  const auto inside = [&](uint64_t at, uint64_t clusters) {
    const uint64_t first = at >> geometry.cluster_bits;
    return at % geometry.cluster_bytes() == 0 && first != 0 &&
           first < file_clusters && clusters <= file_clusters - first;
  };
  const uint64_t clusters = geometry.ClustersOf(entries * 8);
  if (!inside(offset, clusters)) {
    return Damaged(file, "the table at offset " + std::to_string(offset));
  }
  AlignedBuffer buffer(clusters << geometry.cluster_bits);
  const ReadOperation read{offset, buffer.span()};
  SNAPSYNC_RETURN_IF_ERROR(file.Read({&read, 1}));
  std::vector<uint64_t> offsets(entries);
  for (uint64_t i = 0; i < entries; ++i) {
    const auto entry = LoadBig<uint64_t>(buffer.data() + i * 8);
    if (entry == 0) continue;
    offsets[i] = entry & ~flags;
    if ((entry & flags) != flags || !inside(offsets[i], 1)) {
      return Damaged(file, "entry " + std::to_string(i) +
                               " of the table at offset " +
                               std::to_string(offset));
    }
  }
  return offsets;
}

absl::StatusOr<CommittedImage> ReadCommittedImage(GrowingFile& file,
                                                  uint64_t file_clusters) {
  CommittedImage image;
  SNAPSYNC_ASSIGN_OR_RETURN(image.header, ReadExportHeader(file));
  const ExportHeader& header = image.header;
  const Geometry& geometry = header.geometry;
  if (header.incomplete) return Damaged(file, "an unfinished file");
  // Bounds what is read by the file's size, and by the format's limits.
  const uint64_t l1_bytes = uint64_t{header.l1_entries} * 8;
  if (header.l1_entries < geometry.L1EntriesOf(header.size) ||
      l1_bytes > Geometry::kMaxL1Bytes) {
    return Damaged(file, "l1_size " + std::to_string(header.l1_entries));
  }
  const uint64_t table_clusters = header.refcount_table_clusters;
  if (table_clusters == 0 || table_clusters > file_clusters ||
      table_clusters * geometry.cluster_bytes() >
          std::max(Geometry::kMaxRefcountTableBytes,
                   geometry.cluster_bytes())) {
    return Damaged(file,
                   "refcount_table_clusters " + std::to_string(table_clusters));
  }
  SNAPSYNC_ASSIGN_OR_RETURN(
      image.l1, ReadOffsets(file, geometry, header.l1_offset, header.l1_entries,
                            kEntryCopied, file_clusters));
  SNAPSYNC_ASSIGN_OR_RETURN(
      image.refcount_blocks,
      ReadOffsets(file, geometry, header.refcount_table_offset,
                  table_clusters * geometry.table_entries(), 0, file_clusters));
  return image;
}

absl::StatusOr<ClusterSet> FindFreeClusters(GrowingFile& file,
                                            const CommittedImage& image,
                                            uint64_t file_clusters) {
  const Geometry& geometry = image.header.geometry;
  // So many blocks at a time that reading them is worth the call.
  const uint64_t at_once =
      std::max<uint64_t>(1, 4 * kMiB / geometry.cluster_bytes());
  AlignedBuffer buffer(at_once * geometry.cluster_bytes());
  ClusterSet free;
  const uint64_t per_block = geometry.block_entries();
  const uint64_t blocks = (file_clusters + per_block - 1) / per_block;
  for (uint64_t begin = 0; begin < blocks; begin += at_once) {
    const uint64_t end = std::min(begin + at_once, blocks);
    std::vector<ReadOperation> reads;
    const auto has_block = [&](uint64_t block) {
      return block < image.refcount_blocks.size() &&
             image.refcount_blocks[block] != 0;
    };
    const auto place = [&](uint64_t block) {
      return buffer.span().subspan((block - begin) * geometry.cluster_bytes(),
                                   geometry.cluster_bytes());
    };
    for (uint64_t block = begin; block < end; ++block) {
      if (has_block(block)) {
        reads.push_back({image.refcount_blocks[block], place(block)});
      }
    }
    SNAPSYNC_RETURN_IF_ERROR(file.Read(reads));
    for (uint64_t block = begin; block < end; ++block) {
      const uint64_t first = block * per_block;
      const uint64_t count = std::min(per_block, file_clusters - first);
      if (!has_block(block)) {
        free.Add(first, count);
        continue;
      }
      const std::byte* counts = place(block).data();
      uint64_t used_end = 0;  // behind the last one in use
      for (uint64_t i = 0; i < count; ++i) {
        if (LoadBig<uint16_t>(counts + i * 2) == 0) continue;
        free.Add(first + used_end, i - used_end);
        used_end = i + 1;
      }
      free.Add(first + used_end, count - used_end);
    }
  }
  if (free.Contains(0)) return Damaged(file, "the refcount of the header");
  return free;
}

}  // namespace snapsync::qcow2
