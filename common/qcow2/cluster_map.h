// SPDX-License-Identifier: Apache-2.0
//
// Where the clusters of an image are: L1 in memory, and of the L2 tables those
// that were used last; the others lie in the file. A table that changes is
// written to a host cluster of its own, never to where the committed image has
// it, nor over what a reader of the journal may rely on.
//
// Memory: 8 bytes for each L2 table, and kCachedBytes.
//
// Used by one thread at a time. kBaseMismatch for a table of the committed
// image that is not one of ours (cluster_entry.h).
#ifndef SNAPSYNC_COMMON_QCOW2_CLUSTER_MAP_H_
#define SNAPSYNC_COMMON_QCOW2_CLUSTER_MAP_H_

#include <cstdint>
#include <functional>
#include <list>
#include <span>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/block/host_folder.h"
#include "common/qcow2/geometry.h"
#include "common/qcow2/host_space.h"
#include "common/qcow2/write_queue.h"

namespace snapsync::qcow2 {

class ClusterMap {
 public:
  static constexpr uint64_t kCachedBytes = 16 * kMiB;

  // `l1` has the host offsets of the committed image's tables, 0 where there is
  // none. What is passed must outlive it.
  ClusterMap(const Geometry& geometry, std::vector<uint64_t> l1,
             HostSpace* space, WriteQueue* queue);

  uint64_t cluster_count() const { return l1_.size() * table_entries_; }

  absl::StatusOr<uint64_t> Get(uint64_t cluster);
  // Returns the entry that was there.
  absl::StatusOr<uint64_t> Set(uint64_t cluster, uint64_t entry);

  // Gives `count` clusters from `first` on the same `entry`. `changed` hears of
  // each that had another one, in ascending order.
  using Changed = std::function<void(uint64_t cluster, uint64_t old_entry)>;
  absl::Status Fill(uint64_t first, uint64_t count, uint64_t entry,
                    const Changed& changed);

  // The entries under L1 entry `index`; empty: all are unallocated. Valid until
  // the next call of anything here.
  absl::StatusOr<std::span<const uint64_t>> Table(uint64_t index);

  // Gives all changed tables to the queue, so that l1() says where they are.
  absl::Status WriteOut();
  const std::vector<uint64_t>& l1() const { return l1_; }

  // The entries of the table at `host_offset` of the committed image.
  absl::StatusOr<std::vector<uint64_t>> ReadTable(uint64_t host_offset);

 private:
  struct CachedTable {
    uint64_t index = 0;
    bool changed = false;
    std::vector<uint64_t> entries;
  };
  using Cache = std::list<CachedTable>;

  absl::StatusOr<CachedTable*> Load(uint64_t index);
  absl::Status Store(CachedTable& table);

  const Geometry geometry_;
  const uint64_t table_entries_;
  const size_t cached_max_;
  std::vector<uint64_t> l1_;
  HostSpace* const space_;
  WriteQueue* const queue_;
  Cache cache_;  // the one used last is first
  std::unordered_map<uint64_t, Cache::iterator> cached_;
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_CLUSTER_MAP_H_
