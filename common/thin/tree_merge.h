// SPDX-License-Identifier: Apache-2.0
//
// Walks two mapping trees of one view side by side, in the order of their keys.
// A subtree whose root both trees share at equal height is the same in both and
// is not read: the cost grows with what differs.
//
// Goes down level by level in windows of bounded size: the nodes of a window
// are read sorted by their place on the disk, and memory depends neither on the
// size of the trees nor on how the differences lie.
#ifndef SNAPSYNC_COMMON_THIN_TREE_MERGE_H_
#define SNAPSYNC_COMMON_THIN_TREE_MERGE_H_

#include <cstdint>
#include <functional>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/thin/btree.h"
#include "common/thin/mappings.h"

namespace snapsync {

// What the walk saw of one tree.
struct TreeWalk {
  bool whole = true;         // no subtree was skipped
  uint64_t entries = 0;      // seen
  uint32_t latest_time = 0;  // of the entries seen; 0 when there were none
};

struct TreeMergeOptions {
  // Tree roots; nullopt stands for an empty tree that costs no read.
  std::optional<uint64_t> base_root;
  std::optional<uint64_t> snapshot_root;
  // What both trees map alike is told too from this virtual block on.
  uint64_t read_all_from = kKeyEnd;
  // Data blocks of the pool; a mapping at or above it is damage.
  uint64_t data_blocks = 0;
};

struct TreeMergeResult {
  TreeWalk base;
  TreeWalk snapshot;
};

// Called for each virtual block, ascending, that one of the trees maps or both
// map differently: with both mappings, or nullptr for the tree that does not.
using MergeVisitor = std::function<void(
    uint64_t virtual_block, const Mapping* base, const Mapping* snapshot)>;

// kIo for damage.
absl::StatusOr<TreeMergeResult> MergeTrees(NodeReader& nodes,
                                           const TreeMergeOptions& options,
                                           const MergeVisitor& visitor);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_THIN_TREE_MERGE_H_
