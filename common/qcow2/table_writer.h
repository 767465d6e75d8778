// SPDX-License-Identifier: Apache-2.0
//
// The last writes of a commit, of a new image and of an old one alike.
#ifndef SNAPSYNC_COMMON_QCOW2_TABLE_WRITER_H_
#define SNAPSYNC_COMMON_QCOW2_TABLE_WRITER_H_

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "common/block/host_folder.h"
#include "common/qcow2/cluster_store.h"
#include "common/qcow2/export_header.h"

namespace snapsync::qcow2 {

// Queues a table of offsets, which fills the host clusters from `host_cluster`
// on (zeroes behind its end). `flags` are set in each that is not 0.
absl::Status WriteTable(ClusterStore& store, uint64_t host_cluster,
                        std::span<const uint64_t> offsets, uint64_t flags);

// Requires: all that `header` speaks of is durable. Writes the first sector of
// the file, by which it becomes what `header` says, and makes it durable.
absl::Status SwitchHeader(GrowingFile& file, const ExportHeader& header);

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_TABLE_WRITER_H_
