// SPDX-License-Identifier: Apache-2.0
//
// Clusters of which a part was written: kept in memory until the rest has come,
// or until they have to go, filled up with what was there before.
//
// Used by one thread at a time.
#ifndef SNAPSYNC_COMMON_QCOW2_PARTIAL_CLUSTERS_H_
#define SNAPSYNC_COMMON_QCOW2_PARTIAL_CLUSTERS_H_

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "common/base/aligned_buffer.h"
#include "common/base/units.h"
#include "common/qcow2/geometry.h"

namespace snapsync::qcow2 {

class PartialCluster {
 public:
  explicit PartialCluster(uint64_t cluster_bytes)
      : data_(cluster_bytes),
        covered_(cluster_bytes / kSectorBytes),
        missing_(covered_.size()) {}

  // Both take multiples of a sector.
  void Cover(uint64_t offset, std::span<const std::byte> data);
  void CoverWithZeroes(uint64_t offset, uint64_t length);
  bool whole() const { return missing_ == 0; }
  // Fills what is not covered with that of `old`, a whole cluster.
  void FillFrom(std::span<const std::byte> old);

  std::span<const std::byte> data() const { return data_.span(); }

 private:
  void MarkCovered(uint64_t offset, uint64_t length);

  AlignedBuffer data_;
  std::vector<bool> covered_;  // sectors
  uint64_t missing_;
};

class PartialClusters {
 public:
  // Memory for them. Zero runs are found in 64 KiB, so with larger clusters a
  // batch of scattered data opens many at once, which are closed before their
  // zeroes come: correct, but written twice.
  static constexpr uint64_t kBytes = 32 * kMiB;

  // `size` is the image's, in bytes.
  PartialClusters(const Geometry& geometry, uint64_t size)
      : geometry_(geometry), size_(size) {}

  PartialCluster* Find(uint64_t cluster);
  // Begins one where there is none. What is behind the image's end counts as
  // covered, with zeroes.
  PartialCluster& Open(uint64_t cluster);
  void Close(uint64_t cluster) { open_.erase(cluster); }

  bool empty() const { return open_.empty(); }
  // There are more than there should be.
  bool crowded() const {
    return open_.size() * geometry_.cluster_bytes() > kBytes;
  }
  // The lowest, which the stream has left behind most likely; the first at or
  // behind `cluster`, or nothing.
  uint64_t lowest() const { return open_.begin()->first; }
  void CloseRange(uint64_t first, uint64_t count);

 private:
  const Geometry geometry_;
  const uint64_t size_;
  std::map<uint64_t, PartialCluster> open_;
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_PARTIAL_CLUSTERS_H_
