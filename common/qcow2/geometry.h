// SPDX-License-Identifier: Apache-2.0
//
// What follows from the size of a cluster, in images as we write them: 16-bit
// refcounts, standard L2 entries (docs of the format: format.h).
//
// A "cluster" alone is a guest cluster's number; a host cluster says so. Both
// are counted from 0. Thread-safe: a value.
#ifndef SNAPSYNC_COMMON_QCOW2_GEOMETRY_H_
#define SNAPSYNC_COMMON_QCOW2_GEOMETRY_H_

#include <algorithm>
#include <cstdint>

#include "common/base/units.h"
#include "common/qcow2/format.h"

namespace snapsync::qcow2 {

struct Geometry {
  // 4 KiB: what O_DIRECT wants anywhere. 2 MiB: QEMU's limit.
  static constexpr uint32_t kMinWriteBits = 12;
  static constexpr uint32_t kDefaultBits = 16;
  // QEMU's limits.
  static constexpr uint64_t kMaxL1Bytes = 32 * kMiB;
  static constexpr uint64_t kMaxRefcountTableBytes = 8 * kMiB;

  uint32_t cluster_bits = kDefaultBits;

  uint64_t cluster_bytes() const { return uint64_t{1} << cluster_bits; }
  // Entries of an L2 table.
  uint64_t table_entries() const { return cluster_bytes() / 8; }
  // Guest bytes under one L2 table.
  uint64_t table_reach() const { return cluster_bytes() * table_entries(); }
  // Host clusters counted by one refcount block.
  uint64_t block_entries() const { return cluster_bytes() / 2; }

  uint64_t ClustersOf(uint64_t bytes) const {
    return (bytes >> cluster_bits) +
           ((bytes & (cluster_bytes() - 1)) != 0 ? 1 : 0);
  }
  // At least one: an image without any has no L1 table, which is legal but
  // which nobody else writes.
  uint64_t L1EntriesOf(uint64_t size) const {
    return std::max<uint64_t>(
        1, (ClustersOf(size) + table_entries() - 1) / table_entries());
  }

  friend bool operator==(const Geometry&, const Geometry&) = default;
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_GEOMETRY_H_
