// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/cluster_set.h"

#include <algorithm>
#include <iterator>

namespace snapsync::qcow2 {

void ClusterSet::Add(uint64_t first, uint64_t count) {
  if (count == 0) return;
  uint64_t end = first + count;
  auto run = runs_.upper_bound(first);
  if (run != runs_.begin() && std::prev(run)->second >= first) --run;
  while (run != runs_.end() && run->first <= end) {
    first = std::min(first, run->first);
    end = std::max(end, run->second);
    size_ -= run->second - run->first;
    run = runs_.erase(run);
  }
  runs_.emplace_hint(run, first, end);
  size_ += end - first;
}

void ClusterSet::Remove(uint64_t first, uint64_t count) {
  if (count == 0) return;
  const uint64_t end = first + count;
  auto run = runs_.upper_bound(first);
  if (run != runs_.begin() && std::prev(run)->second > first) --run;
  while (run != runs_.end() && run->first < end) {
    const auto [run_first, run_end] = *run;
    run = runs_.erase(run);
    size_ -= run_end - run_first;
    if (run_first < first) {
      runs_.emplace(run_first, first);
      size_ += first - run_first;
    }
    if (run_end > end) {
      runs_.emplace(end, run_end);
      size_ += run_end - end;
    }
  }
}

void ClusterSet::Add(const ClusterSet& other) {
  for (const auto& [first, end] : other.runs_) Add(first, end - first);
}

bool ClusterSet::Contains(uint64_t cluster) const {
  const auto run = runs_.upper_bound(cluster);
  return run != runs_.begin() && std::prev(run)->second > cluster;
}

std::optional<uint64_t> ClusterSet::Take(uint64_t count) {
  for (const auto& [first, end] : runs_) {
    if (end - first < count) continue;
    const uint64_t taken = first;
    Remove(taken, count);
    return taken;
  }
  return std::nullopt;
}

}  // namespace snapsync::qcow2
