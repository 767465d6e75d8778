// SPDX-License-Identifier: Apache-2.0
#include "common/thin/tree_merge.h"

#include <algorithm>
#include <array>
#include <span>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/thin/format.h"

namespace snapsync {
namespace {

// Nodes in memory at a time: 16 MiB of leaves; an internal node brings up to
// 252 references of 24 bytes with it.
constexpr size_t kLeafWindow = 4096;
constexpr size_t kInternalWindow = 128;

enum Side : size_t { kBase = 0, kSnapshot = 1 };
constexpr std::array<Side, 2> kSides = {kBase, kSnapshot};

struct Entry {
  uint64_t key = 0;
  uint64_t value = 0;
};

// The entries of one tree in the order of their keys: those left over from the
// window before, then those of the leaves of this one.
class EntryCursor {
 public:
  explicit EntryCursor(std::vector<Entry> left_over)
      : left_over_(std::move(left_over)) {
    Load();
  }

  // Requires: no entry was taken yet.
  void AddLeaf(const BtreeNode& leaf) {
    if (leaf.count() == 0) return;
    leaves_.push_back(leaf);
    if (!valid_) Load();
  }

  // False at the end.
  bool valid() const { return valid_; }
  const Entry& entry() const { return entry_; }

  void Next() {
    if (next_left_over_ < left_over_.size()) {
      ++next_left_over_;
    } else if (++next_entry_ == leaves_[next_leaf_].count()) {
      ++next_leaf_;
      next_entry_ = 0;
    }
    Load();
  }

  std::vector<Entry> TakeRest() {
    std::vector<Entry> rest;
    for (; valid_; Next()) rest.push_back(entry_);
    return rest;
  }

 private:
  void Load() {
    valid_ = true;
    if (next_left_over_ < left_over_.size()) {
      entry_ = left_over_[next_left_over_];
    } else if (next_leaf_ < leaves_.size()) {
      const BtreeNode& leaf = leaves_[next_leaf_];
      entry_ = {leaf.key(next_entry_), leaf.value64(next_entry_)};
    } else {
      valid_ = false;
    }
  }

  std::vector<Entry> left_over_;
  size_t next_left_over_ = 0;
  std::vector<BtreeNode> leaves_;
  size_t next_leaf_ = 0;
  uint32_t next_entry_ = 0;
  bool valid_ = false;
  Entry entry_;
};

// Invariants, for each level (0 = leaves):
//  - what waits there of one tree ascends and does not overlap;
//  - Advance(level, horizon) is called when all that starts below `horizon` has
//    arrived; only what also ends there is read, so that a subtree that the
//    other tree shares has arrived from it too.
// So the entries below the horizon of the leaves are complete in both trees and
// can be merged; the few above it are kept.
class TreeMerge {
 public:
  TreeMerge(NodeReader& nodes, const TreeMergeOptions& options,
            const MergeVisitor& visitor)
      : nodes_(nodes), options_(options), visitor_(visitor) {}

  absl::StatusOr<TreeMergeResult> Run() {
    const std::array<std::optional<uint64_t>, 2> roots = {
        options_.base_root, options_.snapshot_root};
    if (roots[kBase] && roots[kBase] == roots[kSnapshot] &&
        options_.read_all_from == kKeyEnd) {
      walks_[kBase].whole = walks_[kSnapshot].whole = false;
      return TreeMergeResult{walks_[kBase], walks_[kSnapshot]};
    }
    int top = -1;
    std::array<int, 2> heights = {-1, -1};
    for (const Side side : kSides) {
      if (!roots[side]) continue;
      SNAPSYNC_ASSIGN_OR_RETURN(heights[side],
                                nodes_.Height(*roots[side], kMappingValueSize));
      top = std::max(top, heights[side]);
    }
    if (top >= 0) {
      levels_.resize(static_cast<size_t>(top) + 1);
      for (const Side side : kSides) {
        if (!roots[side]) continue;
        levels_[static_cast<size_t>(heights[side])].waiting[side].push_back(
            {*roots[side], 0, kKeyEnd});
      }
      SNAPSYNC_RETURN_IF_ERROR(Advance(levels_.size() - 1, kKeyEnd));
    }
    return TreeMergeResult{walks_[kBase], walks_[kSnapshot]};
  }

 private:
  struct Level {
    std::array<std::vector<NodeReference>, 2> waiting;
  };
  struct Window {
    std::vector<NodeReference> references;
    std::vector<Side> sides;
  };

  absl::Status Advance(size_t level, uint64_t horizon) {
    SNAPSYNC_RETURN_IF_ERROR(SkipShared(level));
    while (true) {
      uint64_t reached = horizon;
      const Window window = TakeWindow(level, &reached);
      // What was skipped may have been all that held the horizon back.
      if (window.references.empty() && level > 0) {
        return Advance(level - 1, reached);
      }
      std::vector<BtreeNode> nodes;
      SNAPSYNC_RETURN_IF_ERROR(ReadWindow(level, window, &nodes));
      if (level > 0) {
        SNAPSYNC_RETURN_IF_ERROR(Descend(level, window, nodes));
        SNAPSYNC_RETURN_IF_ERROR(Advance(level - 1, reached));
      } else {
        SNAPSYNC_RETURN_IF_ERROR(MergeEntries(window, nodes, reached));
        if (window.references.empty()) return absl::OkStatus();
      }
    }
  }

  // The next references in the order of their keys that end at the horizon.
  // Lowers `reached` to where the first of those starts that stay.
  Window TakeWindow(size_t level, uint64_t* reached) {
    const size_t limit = level == 0 ? kLeafWindow : kInternalWindow;
    Window window;
    std::array<size_t, 2> taken = {0, 0};
    auto& waiting = levels_[level].waiting;
    while (window.references.size() < limit) {
      std::optional<Side> next;
      for (const Side side : kSides) {
        if (taken[side] == waiting[side].size()) continue;
        const NodeReference& reference = waiting[side][taken[side]];
        // A root of the lower tree has arrived for good, whatever its range.
        const bool root = reference.first == 0 && reference.end == kKeyEnd;
        if (reference.end > *reached && !root) continue;
        if (!next || reference.first < waiting[*next][taken[*next]].first) {
          next = side;
        }
      }
      if (!next) break;
      window.references.push_back(waiting[*next][taken[*next]++]);
      window.sides.push_back(*next);
    }
    for (const Side side : kSides) {
      auto& list = waiting[side];
      list.erase(list.begin(),
                 list.begin() + static_cast<std::ptrdiff_t>(taken[side]));
      if (!list.empty()) *reached = std::min(*reached, list.front().first);
    }
    return window;
  }

  absl::Status ReadWindow(size_t level, const Window& window,
                          std::vector<BtreeNode>* nodes) {
    for (const Side side : window.sides) {
      // Damage can make a tree larger than the device that it lies on.
      if (++nodes_read_[side] > nodes_.block_limit()) {
        return Error(Reason::kIo,
                     absl::StrCat(nodes_.device(),
                                  ": a mapping tree has more nodes than the "
                                  "metadata has blocks (",
                                  nodes_.block_limit(),
                                  "); the metadata is damaged: examine it with "
                                  "thin_check"));
      }
    }
    if (window.references.empty()) return absl::OkStatus();
    return nodes_.Read(window.references,
                       level == 0 ? NodeKind::kLeaf : NodeKind::kInternal,
                       kMappingValueSize, nodes);
  }

  absl::Status Descend(size_t level, const Window& window,
                       const std::vector<BtreeNode>& nodes) {
    for (size_t place = 0; place < nodes.size(); ++place) {
      auto& below = levels_[level - 1].waiting[window.sides[place]];
      for (uint32_t index = 0; index < nodes[place].count(); ++index) {
        below.push_back(nodes[place].child(index));
      }
    }
    return absl::OkStatus();
  }

  // Drops what waits on both sides: the same block at the same height.
  absl::Status SkipShared(size_t level) {
    auto& waiting = levels_[level].waiting;
    if (waiting[kBase].empty() || waiting[kSnapshot].empty()) {
      return absl::OkStatus();
    }
    std::array<std::vector<size_t>, 2> by_block;
    for (const Side side : kSides) {
      SNAPSYNC_ASSIGN_OR_RETURN(by_block[side], SortByBlock(waiting[side]));
    }
    std::array<std::vector<bool>, 2> shared = {
        std::vector<bool>(waiting[kBase].size()),
        std::vector<bool>(waiting[kSnapshot].size())};
    auto right = by_block[kSnapshot].begin();
    for (const size_t left : by_block[kBase]) {
      const NodeReference& base = waiting[kBase][left];
      while (right != by_block[kSnapshot].end() &&
             waiting[kSnapshot][*right].block < base.block) {
        ++right;
      }
      if (right == by_block[kSnapshot].end()) break;
      const NodeReference& snapshot = waiting[kSnapshot][*right];
      if (snapshot.block != base.block) continue;
      // Parents may give a shared child slightly different ranges, but not
      // such as have nothing in common: that would be damage, and is met as
      // such when both are read.
      const bool overlap = std::max(base.first, snapshot.first) <
                           std::min(base.end, snapshot.end);
      if (overlap && base.end <= options_.read_all_from &&
          snapshot.end <= options_.read_all_from) {
        shared[kBase][left] = shared[kSnapshot][*right] = true;
        walks_[kBase].whole = walks_[kSnapshot].whole = false;
      }
    }
    for (const Side side : kSides) {
      size_t kept = 0;
      auto& list = waiting[side];
      for (size_t index = 0; index < list.size(); ++index) {
        if (!shared[side][index]) list[kept++] = list[index];
      }
      list.resize(kept);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<size_t>> SortByBlock(
      const std::vector<NodeReference>& references) const {
    std::vector<size_t> order(references.size());
    for (size_t index = 0; index < order.size(); ++index) order[index] = index;
    std::sort(order.begin(), order.end(), [&](size_t left, size_t right) {
      return references[left].block < references[right].block;
    });
    for (size_t place = 1; place < order.size(); ++place) {
      const NodeReference& twice = references[order[place]];
      if (twice.block == references[order[place - 1]].block) {
        return DamagedMetadata(nodes_.device(), twice.block,
                               "parents within one mapping tree", "two", "one");
      }
    }
    return order;
  }

  absl::Status MergeEntries(const Window& window,
                            const std::vector<BtreeNode>& nodes,
                            uint64_t horizon) {
    std::array<EntryCursor, 2> cursors = {
        EntryCursor(std::move(left_over_[kBase])),
        EntryCursor(std::move(left_over_[kSnapshot]))};
    for (size_t place = 0; place < nodes.size(); ++place) {
      SNAPSYNC_RETURN_IF_ERROR(CheckLeaf(window.references[place], nodes[place],
                                         window.sides[place]));
      cursors[window.sides[place]].AddLeaf(nodes[place]);
    }
    EntryCursor& base = cursors[kBase];
    EntryCursor& snapshot = cursors[kSnapshot];
    while (true) {
      const uint64_t base_key = base.valid() ? base.entry().key : kKeyEnd;
      const uint64_t snapshot_key =
          snapshot.valid() ? snapshot.entry().key : kKeyEnd;
      const uint64_t key = std::min(base_key, snapshot_key);
      if (key >= horizon) break;
      const bool same = base_key == snapshot_key &&
                        base.entry().value == snapshot.entry().value;
      if (!same || key >= options_.read_all_from) {
        const Mapping base_mapping = Mapping::Unpack(base.entry().value);
        const Mapping snapshot_mapping =
            Mapping::Unpack(snapshot.entry().value);
        visitor_(key, base_key == key ? &base_mapping : nullptr,
                 snapshot_key == key ? &snapshot_mapping : nullptr);
      }
      if (base_key == key) base.Next();
      if (snapshot_key == key) snapshot.Next();
    }
    for (const Side side : kSides) {
      left_over_[side] = cursors[side].TakeRest();
    }
    return absl::OkStatus();
  }

  absl::Status CheckLeaf(const NodeReference& reference, const BtreeNode& leaf,
                         Side side) {
    TreeWalk& walk = walks_[side];
    for (uint32_t index = 0; index < leaf.count(); ++index) {
      const Mapping mapping = Mapping::Unpack(leaf.value64(index));
      if (mapping.data_block >= options_.data_blocks) {
        return DamagedMetadata(
            nodes_.device(), reference.block,
            absl::StrCat("data block of virtual block ", leaf.key(index)),
            absl::StrCat(mapping.data_block),
            absl::StrCat("below ", options_.data_blocks));
      }
      walk.latest_time = std::max(walk.latest_time, mapping.time);
    }
    walk.entries += leaf.count();
    return absl::OkStatus();
  }

  NodeReader& nodes_;
  const TreeMergeOptions& options_;
  const MergeVisitor& visitor_;
  std::vector<Level> levels_;
  std::array<std::vector<Entry>, 2> left_over_;
  std::array<TreeWalk, 2> walks_;
  std::array<uint64_t, 2> nodes_read_{};
};

}  // namespace

absl::StatusOr<TreeMergeResult> MergeTrees(NodeReader& nodes,
                                           const TreeMergeOptions& options,
                                           const MergeVisitor& visitor) {
  return TreeMerge(nodes, options, visitor).Run();
}

}  // namespace snapsync
