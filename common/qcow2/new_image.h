// SPDX-License-Identifier: Apache-2.0
//
// The beginning and the end of a new image:
//
//   the guard header: every reader refuses the file by name
//   data and tables, as they come (cluster_store.h)
//   L1, refcount blocks and refcount table behind them; flush
//   the header's first sector: the image is there; flush
//
// Whatever of this a power cut leaves, the file is refused or it is whole.
#ifndef SNAPSYNC_COMMON_QCOW2_NEW_IMAGE_H_
#define SNAPSYNC_COMMON_QCOW2_NEW_IMAGE_H_

#include "absl/status/status.h"
#include "common/block/host_folder.h"
#include "common/qcow2/cluster_store.h"
#include "common/qcow2/export_header.h"

namespace snapsync::qcow2 {

// Writes the guard header of `header` (whose incomplete is true) into a file
// that has nothing of value, and makes it durable.
absl::Status BeginNewImage(GrowingFile& file, const ExportHeader& header);

// Refcounts in memory at a time. With clusters of 64 KiB: those of 1 TiB.
inline constexpr uint64_t kWindowClusters = 16 << 20;

// Finishes what BeginNewImage() began. Of `header`, tables and "incomplete" are
// set here. `window_clusters` is a multiple of what a refcount block counts.
// kTargetUnsuitable when the format has no room for so many clusters.
absl::Status FinishNewImage(ClusterStore& store, ExportHeader header,
                            uint64_t window_clusters = kWindowClusters);

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_NEW_IMAGE_H_
