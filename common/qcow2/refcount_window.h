// SPDX-License-Identifier: Apache-2.0
//
// The refcounts of a run of host clusters, counted from what refers to them.
// Host clusters outside of the run are left out, so that an image of any size
// is counted with bounded memory: run after run.
//
// Knows who may share: compressed clusters with each other, nobody else. What
// breaks that is an error of ours, and an image with it is never finished.
//
// Used by one thread at a time.
#ifndef SNAPSYNC_COMMON_QCOW2_REFCOUNT_WINDOW_H_
#define SNAPSYNC_COMMON_QCOW2_REFCOUNT_WINDOW_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "common/qcow2/geometry.h"

namespace snapsync::qcow2 {

class RefcountWindow {
 public:
  // Of `count` host clusters from `first` on.
  RefcountWindow(const Geometry& geometry, uint64_t first, uint64_t count)
      : geometry_(geometry), first_(first), counts_(count) {}

  uint64_t first() const { return first_; }
  uint64_t end() const { return first_ + counts_.size(); }

  // The clusters [first, first + count) have one owner: a table, or the header.
  absl::Status AddOwned(uint64_t first, uint64_t count);
  // What the entries of an L2 table name.
  absl::Status AddTable(std::span<const uint64_t> entries);

  uint16_t Of(uint64_t host_cluster) const {
    return counts_[host_cluster - first_] & (kOwned - 1U);
  }
  // A refcount block: those from `first` on, zeroes behind the end.
  std::vector<std::byte> EncodeBlock(uint64_t first) const;

 private:
  static constexpr uint16_t kOwned = 0x8000;

  absl::Status AddShared(uint64_t first, uint64_t count);
  absl::Status Shared(uint64_t host_cluster) const;

  const Geometry geometry_;
  const uint64_t first_;
  std::vector<uint16_t> counts_;
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_REFCOUNT_WINDOW_H_
