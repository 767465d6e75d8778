// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/partial_clusters.h"

#include <algorithm>
#include <cstring>

#include "common/base/units.h"

namespace snapsync::qcow2 {

void PartialCluster::Cover(uint64_t offset, std::span<const std::byte> data) {
  std::memcpy(data_.data() + offset, data.data(), data.size());
  MarkCovered(offset, data.size());
}

void PartialCluster::CoverWithZeroes(uint64_t offset, uint64_t length) {
  std::memset(data_.data() + offset, 0, length);
  MarkCovered(offset, length);
}

void PartialCluster::MarkCovered(uint64_t offset, uint64_t length) {
  const uint64_t end = (offset + length) / kSectorBytes;
  for (uint64_t sector = offset / kSectorBytes; sector < end; ++sector) {
    if (covered_[sector]) continue;
    covered_[sector] = true;
    --missing_;
  }
}

void PartialCluster::FillFrom(std::span<const std::byte> old) {
  for (uint64_t sector = 0; sector < covered_.size(); ++sector) {
    if (covered_[sector]) continue;
    const uint64_t offset = sector * kSectorBytes;
    std::memcpy(data_.data() + offset, old.data() + offset, kSectorBytes);
    covered_[sector] = true;
  }
  missing_ = 0;
}

PartialCluster* PartialClusters::Find(uint64_t cluster) {
  const auto found = open_.find(cluster);
  return found == open_.end() ? nullptr : &found->second;
}

PartialCluster& PartialClusters::Open(uint64_t cluster) {
  const auto [at, is_new] =
      open_.try_emplace(cluster, geometry_.cluster_bytes());
  const uint64_t inside = std::min(geometry_.cluster_bytes(),
                                   size_ - (cluster << geometry_.cluster_bits));
  if (is_new && inside < geometry_.cluster_bytes()) {
    at->second.CoverWithZeroes(inside, geometry_.cluster_bytes() - inside);
  }
  return at->second;
}

void PartialClusters::CloseRange(uint64_t first, uint64_t count) {
  open_.erase(open_.lower_bound(first), open_.lower_bound(first + count));
}

}  // namespace snapsync::qcow2
