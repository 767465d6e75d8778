// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/host_space.h"

#include <algorithm>
#include <optional>

namespace snapsync::qcow2 {

void HostSpace::BeginReplay(uint64_t end) {
  free_ = ClusterSet();
  replayed_end_ = end_ = std::max(end, base_end_);
}

void HostSpace::EndReplay(const ClusterSet& used) {
  free_ = base_free_;
  free_.Add(base_end_, replayed_end_ - base_end_);
  for (const auto& [first, end] : used.runs()) free_.Remove(first, end - first);
  // Tables that the replay itself wrote, twice: nobody else knows of them.
  free_.Add(TakeReleased());
}

uint64_t HostSpace::Allocate(uint64_t count) {
  if (const std::optional<uint64_t> first = free_.Take(count)) return *first;
  return AllocateAtEnd(count);
}

uint64_t HostSpace::AllocateAtEnd(uint64_t count) {
  const uint64_t first = end_;
  end_ += count;
  return first;
}

void HostSpace::Release(uint64_t first, uint64_t count) {
  for (uint64_t cluster = first; cluster < first + count; ++cluster) {
    if (IsOurs(cluster)) released_.Add(cluster, 1);
  }
}

}  // namespace snapsync::qcow2
