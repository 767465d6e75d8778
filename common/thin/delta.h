// SPDX-License-Identifier: Apache-2.0
//
// What may differ between two thin devices of one pool, out of the metadata
// alone: the difference of their mapping trees by data block number, read in
// one view. Whether that is the difference of their *contents* is another
// question: guards.h (docs/delta.md has the rules and their reasons).
#ifndef SNAPSYNC_COMMON_THIN_DELTA_H_
#define SNAPSYNC_COMMON_THIN_DELTA_H_

#include <cstdint>
#include <functional>
#include <optional>

#include "absl/status/statusor.h"
#include "common/block/extent.h"
#include "common/thin/mappings.h"
#include "common/thin/tree_merge.h"

namespace snapsync {

// Extents in bytes of the thin device.
struct Delta {
  uint32_t block_size_bytes = 0;
  ExtentList changed;  // mapped in the snapshot, and not the same in the base
  ExtentList gone;     // not mapped in the snapshot any more: reads as zeroes
  uint64_t metadata_blocks_read = 0;
};

struct TreeDelta {
  Delta delta;
  TreeWalk base;
  TreeWalk snapshot;
};

struct DeltaSizes {
  // Bytes. The snapshot's: extents are clipped to it; nullopt: no clipping.
  std::optional<uint64_t> snapshot;
  // The base's. When the snapshot is larger, all of it from the block on in
  // which the base ends is changed (mapped) or gone (not mapped): mappings
  // beyond the end of a shrunk device stay, and come back when it grows.
  std::optional<uint64_t> base;
};

// The delta from `base` (nullopt: nothing, all that is mapped is changed) to
// `snapshot`. kIo for damaged metadata, also when a tree that was walked whole
// has not as many entries as its device details say.
absl::StatusOr<TreeDelta> CompareDevices(PoolView& view,
                                         const std::optional<ThinDevice>& base,
                                         const ThinDevice& snapshot,
                                         const DeltaSizes& sizes);

using MappingVisitor =
    std::function<void(uint64_t virtual_block, const Mapping&)>;

// Walks the whole tree of `device`, ascending: kIo for damage as above.
absl::StatusOr<TreeWalk> WalkDevice(PoolView& view, const ThinDevice& device,
                                    const MappingVisitor& visitor = nullptr);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_THIN_DELTA_H_
