// SPDX-License-Identifier: Apache-2.0
//
// L2 entries as our exports have them: nothing (0), "reads as zeroes" (1), a
// host cluster of its own (COPIED), or a compressed run of bytes. Anything else
// is the work of others. Thread-safe: pure functions.
#ifndef SNAPSYNC_COMMON_QCOW2_CLUSTER_ENTRY_H_
#define SNAPSYNC_COMMON_QCOW2_CLUSTER_ENTRY_H_

#include <cstdint>

#include "common/block/extent.h"
#include "common/qcow2/format.h"
#include "common/qcow2/geometry.h"

namespace snapsync::qcow2 {

inline constexpr uint64_t kUnallocatedEntry = 0;
inline constexpr uint64_t kZeroEntry = kL2Zero;
// The unit in which a compressed run's length is stored.
inline constexpr uint64_t kCompressedSectorBytes = 512;

inline bool IsCompressed(uint64_t entry) {
  return (entry & kL2Compressed) != 0;
}
inline bool HasData(uint64_t entry) {
  return entry != kUnallocatedEntry && entry != kZeroEntry;
}

// Requires: a multiple of the cluster's size.
inline uint64_t StandardEntry(uint64_t host_offset) {
  return host_offset | kEntryCopied;
}

inline unsigned CompressedOffsetBits(const Geometry& geometry) {
  return 62 - (geometry.cluster_bits - 8);
}

// Requires: 0 < `stored.length` < the cluster's size.
inline uint64_t CompressedEntry(const Geometry& geometry,
                                const Extent& stored) {
  const uint64_t further =
      (stored.offset % kCompressedSectorBytes + stored.length - 1) /
      kCompressedSectorBytes;
  return kL2Compressed | (further << CompressedOffsetBits(geometry)) |
         stored.offset;
}

// Where the bytes of an entry that HasData() lie. Those of a compressed one end
// with a sector of 512 bytes, of which the last may be the next one's.
inline Extent HostBytesOf(const Geometry& geometry, uint64_t entry) {
  if (!IsCompressed(entry)) {
    return {entry & kEntryOffsetMask, geometry.cluster_bytes()};
  }
  const unsigned bits = CompressedOffsetBits(geometry);
  const uint64_t offset = entry & ((uint64_t{1} << bits) - 1);
  const uint64_t further = (entry & ~(kL2Compressed | kEntryCopied)) >> bits;
  return {offset, (further + 1) * kCompressedSectorBytes -
                      offset % kCompressedSectorBytes};
}

// Whether an entry is one of ours and what it names lies behind the header and
// in a file of `file_clusters` clusters.
inline bool IsOurEntry(const Geometry& geometry, uint64_t entry,
                       uint64_t file_clusters) {
  if (!HasData(entry)) return true;
  if (IsCompressed(entry)) {
    if ((entry & kEntryCopied) != 0) return false;
  } else if (entry != StandardEntry(entry & kEntryOffsetMask) ||
             entry % geometry.cluster_bytes() != 0) {
    return false;
  }
  const Extent host = HostBytesOf(geometry, entry);
  // Neither sum overflows: offsets have at most 56 bits, lengths 22.
  return host.offset >= geometry.cluster_bytes() &&
         geometry.ClustersOf(host.end()) <= file_clusters;
}

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_CLUSTER_ENTRY_H_
