// SPDX-License-Identifier: Apache-2.0
//
// The refcounts of an image that becomes its next generation: those that change
// are read, counted anew and written to new blocks; the others stay where they
// are.
//
// Memory: the blocks that change; with clusters of 64 KiB at most 32 MiB for a
// TiB of file.
//
// Used by one thread at a time. kBaseMismatch when the committed image's counts
// are not what its tables say.
#ifndef SNAPSYNC_COMMON_QCOW2_REFCOUNT_UPDATE_H_
#define SNAPSYNC_COMMON_QCOW2_REFCOUNT_UPDATE_H_

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/block/extent.h"
#include "common/qcow2/cluster_set.h"
#include "common/qcow2/cluster_store.h"

namespace snapsync::qcow2 {

class RefcountUpdate {
 public:
  // `blocks` are the offsets in the committed image's refcount table, which
  // fills the host clusters `table`. `store` must outlive it.
  RefcountUpdate(ClusterStore* store, std::vector<uint64_t> blocks,
                 Extent table);

  // Host clusters that have, or had, one owner.
  absl::Status Add(uint64_t first, uint64_t count);
  absl::Status Drop(uint64_t first, uint64_t count);
  // What an L2 entry names: one owner, or shared by compressed clusters.
  absl::Status AddEntry(uint64_t entry);
  absl::Status DropEntry(uint64_t entry);

  // Finds places for blocks and table, counts them, and queues them. The host
  // clusters of the new table.
  absl::StatusOr<Extent> Write();

  // What the next generation does not use any more.
  const ClusterSet& dropped() const { return dropped_; }

 private:
  struct Block {
    std::vector<uint16_t> counts;
    uint64_t host_cluster = 0;  // where it will be; 0: not known yet
  };

  absl::StatusOr<uint16_t*> Find(uint64_t host_cluster);
  absl::Status Increment(uint64_t host_cluster, bool shared);
  absl::Status Decrement(uint64_t host_cluster, bool shared);
  // Gives each changed block a place; more of them change by that.
  absl::Status PlaceBlocks();

  ClusterStore* const store_;
  std::vector<uint64_t> blocks_;
  Extent table_;
  std::map<uint64_t, Block> changed_;
  ClusterSet dropped_;
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_REFCOUNT_UPDATE_H_
