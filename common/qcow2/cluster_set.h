// SPDX-License-Identifier: Apache-2.0
//
// A set of host clusters, kept as runs: a large image that was written in order
// takes a few. Used by one thread at a time.
#ifndef SNAPSYNC_COMMON_QCOW2_CLUSTER_SET_H_
#define SNAPSYNC_COMMON_QCOW2_CLUSTER_SET_H_

#include <cstdint>
#include <map>
#include <optional>

namespace snapsync::qcow2 {

class ClusterSet {
 public:
  // What is in it already may be added again, and what is not removed.
  void Add(uint64_t first, uint64_t count);
  void Remove(uint64_t first, uint64_t count);
  void Add(const ClusterSet& other);

  bool Contains(uint64_t cluster) const;
  bool empty() const { return runs_.empty(); }
  uint64_t size() const { return size_; }
  // Start and end (exclusive) of each run, ascending; none of them touch.
  const std::map<uint64_t, uint64_t>& runs() const { return runs_; }

  // Removes the lowest `count` clusters that lie one after the other, and
  // returns the first of them. nullopt: there are none.
  std::optional<uint64_t> Take(uint64_t count);

 private:
  std::map<uint64_t, uint64_t> runs_;
  uint64_t size_ = 0;
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_CLUSTER_SET_H_
