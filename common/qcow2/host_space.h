// SPDX-License-Identifier: Apache-2.0
//
// Which host clusters of a file may be written to: those that the committed
// image does not use (its refcount is 0) and all behind its end. What the
// committed image uses is never given out, so that the image stays what it is.
//
// Invariant: a cluster that was released is given out again only after the
// caller has made durable that nothing refers to it (TakeReleased, Reuse).
//
// Used by one thread at a time. Clusters are counted from 0, the header's.
#ifndef SNAPSYNC_COMMON_QCOW2_HOST_SPACE_H_
#define SNAPSYNC_COMMON_QCOW2_HOST_SPACE_H_

#include <cstdint>
#include <utility>

#include "common/qcow2/cluster_set.h"

namespace snapsync::qcow2 {

class HostSpace {
 public:
  // Of a committed image of `base_end` clusters, of which `base_free` are used
  // by nothing. A new image has one, its header.
  HostSpace(ClusterSet base_free, uint64_t base_end)
      : base_free_(std::move(base_free)),
        base_end_(base_end),
        free_(base_free_),
        end_(base_end) {}

  // Before what an earlier opening wrote is known: everything up to `end` is
  // taken for used. EndReplay() frees what is not in `used`.
  void BeginReplay(uint64_t end);
  void EndReplay(const ClusterSet& used);

  // `count` clusters that lie one after the other; the lowest free ones, else
  // at the end.
  uint64_t Allocate(uint64_t count = 1);
  uint64_t AllocateAtEnd(uint64_t count);

  // Nothing of this image's future refers to them. What the committed image
  // uses stays as it is.
  void Release(uint64_t first, uint64_t count = 1);
  // What was released since the last call, and then, when it is durable:
  ClusterSet TakeReleased() { return std::exchange(released_, {}); }
  void Reuse(const ClusterSet& released) { free_.Add(released); }

  // Not used by the committed image.
  bool IsOurs(uint64_t cluster) const {
    return cluster >= base_end_ || base_free_.Contains(cluster);
  }
  uint64_t base_end() const { return base_end_; }
  // Behind the last cluster that was ever given out.
  uint64_t end() const { return end_; }
  const ClusterSet& free() const { return free_; }

 private:
  const ClusterSet base_free_;
  const uint64_t base_end_;
  ClusterSet free_;
  ClusterSet released_;
  uint64_t end_;
  uint64_t replayed_end_ = 0;
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_HOST_SPACE_H_
