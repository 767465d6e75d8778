// SPDX-License-Identifier: Apache-2.0
//
// What an export that is whole is made of, as far as writing the next
// generation into it needs to know. Only a file that is in every bit of its
// header what an export left is read at all (export_header.h); its tables are
// checked all the same, since somebody may have given it to us.
//
// Errors: kBaseMismatch for what no export wrote: a full export helps; kIo.
#ifndef SNAPSYNC_COMMON_QCOW2_COMMITTED_IMAGE_H_
#define SNAPSYNC_COMMON_QCOW2_COMMITTED_IMAGE_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/block/host_folder.h"
#include "common/qcow2/cluster_set.h"
#include "common/qcow2/export_header.h"

namespace snapsync::qcow2 {

struct CommittedImage {
  ExportHeader header;
  // Host offsets, 0 where there is none.
  std::vector<uint64_t> l1;
  std::vector<uint64_t> refcount_blocks;
};

// The header alone: what the file is by now, whole or not.
absl::StatusOr<ExportHeader> ReadExportHeader(GrowingFile& file);

// Of a file that is whole. Everything that is named lies in its first
// `file_clusters` clusters.
absl::StatusOr<CommittedImage> ReadCommittedImage(GrowingFile& file,
                                                  uint64_t file_clusters);

// Which of the host clusters [0, file_clusters) have a refcount of 0. Reads all
// refcounts: with clusters of 64 KiB, 32 MiB for a TiB.
absl::StatusOr<ClusterSet> FindFreeClusters(GrowingFile& file,
                                            const CommittedImage& image,
                                            uint64_t file_clusters);

// The entries of a table of offsets in host clusters, checked: each 0, or
// `flags` and a host cluster behind the header.
absl::StatusOr<std::vector<uint64_t>> ReadOffsets(
    GrowingFile& file, const Geometry& geometry, uint64_t offset,
    uint64_t entries, uint64_t flags, uint64_t file_clusters);

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_COMMITTED_IMAGE_H_
