// SPDX-License-Identifier: Apache-2.0
#include "common/thin/delta.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace snapsync {
namespace {

// Collects extents of whole blocks, in ascending order, within the size.
class DeltaBuilder {
 public:
  DeltaBuilder(uint32_t block_size, const DeltaSizes& sizes)
      : block_size_(block_size), size_(sizes.snapshot.value_or(UINT64_MAX)) {
    delta_.block_size_bytes = block_size;
    if (sizes.base && sizes.snapshot && *sizes.base < *sizes.snapshot) {
      grown_from_ = *sizes.base / block_size;
      covered_ = *grown_from_ * block_size;
    }
  }

  // Whether `virtual_block` is one of which the size alone says that it may
  // differ.
  uint64_t grown_from() const { return grown_from_.value_or(kKeyEnd); }

  // True when the block's offset in bytes does not overflow.
  bool Addressable(uint64_t virtual_block) const {
    return virtual_block < UINT64_MAX / block_size_;
  }

  void Add(uint64_t virtual_block, const Mapping* base,
           const Mapping* snapshot) {
    const uint64_t offset = virtual_block * block_size_;
    if (virtual_block >= grown_from()) {
      if (snapshot == nullptr) return;
      AddTo(delta_.gone, covered_, offset);
      AddTo(delta_.changed, offset, offset + block_size_);
      covered_ = offset + block_size_;
    } else if (snapshot == nullptr) {
      AddTo(delta_.gone, offset, offset + block_size_);
    } else if (base == nullptr || base->data_block != snapshot->data_block) {
      AddTo(delta_.changed, offset, offset + block_size_);
    }
  }

  Delta Finish() {
    if (grown_from_) AddTo(delta_.gone, covered_, size_);
    return std::move(delta_);
  }

 private:
  void AddTo(ExtentList& list, uint64_t from, uint64_t to) const {
    to = std::min(to, size_);
    if (from < to) list.Append({from, to - from});
  }

  const uint64_t block_size_;
  const uint64_t size_;
  std::optional<uint64_t> grown_from_;  // virtual block
  uint64_t covered_ = 0;  // bytes up to which the grown part is in the lists
  Delta delta_;
};

absl::Status CheckEntries(const PoolView& view, const ThinDevice& device,
                          const TreeWalk& walk) {
  if (!walk.whole || walk.entries == device.mapped_blocks) {
    return absl::OkStatus();
  }
  return DamagedMetadata(
      view.name(), device.mapping_root,
      absl::StrCat("entries in the mapping tree of thin device ", device.id),
      absl::StrCat(walk.entries),
      absl::StrCat(device.mapped_blocks, " as its details say (G11)"));
}

}  // namespace

absl::StatusOr<TreeDelta> CompareDevices(PoolView& view,
                                         const std::optional<ThinDevice>& base,
                                         const ThinDevice& snapshot,
                                         const DeltaSizes& sizes) {
  const uint64_t read_before = view.metadata_blocks_read();
  DeltaBuilder builder(view.superblock().data_block_bytes(), sizes);
  TreeMergeOptions options;
  if (base) options.base_root = base->mapping_root;
  options.snapshot_root = snapshot.mapping_root;
  options.read_all_from = builder.grown_from();
  options.data_blocks = view.superblock().data_blocks;
  std::optional<uint64_t> beyond;
  SNAPSYNC_ASSIGN_OR_RETURN(
      const TreeMergeResult merged,
      MergeTrees(view.nodes(), options,
                 [&](uint64_t virtual_block, const Mapping* base_mapping,
                     const Mapping* snapshot_mapping) {
                   if (builder.Addressable(virtual_block)) {
                     builder.Add(virtual_block, base_mapping, snapshot_mapping);
                   } else {
                     beyond = virtual_block;
                   }
                 }));
  if (beyond) {
    return DamagedMetadata(
        view.name(), snapshot.mapping_root,
        absl::StrCat("mapping tree of thin device ", snapshot.id),
        absl::StrCat("virtual block ", *beyond),
        "virtual blocks whose offset fits 64 bits");
  }
  if (base) SNAPSYNC_RETURN_IF_ERROR(CheckEntries(view, *base, merged.base));
  SNAPSYNC_RETURN_IF_ERROR(CheckEntries(view, snapshot, merged.snapshot));
  TreeDelta result{builder.Finish(), merged.base, merged.snapshot};
  result.delta.metadata_blocks_read = view.metadata_blocks_read() - read_before;
  return result;
}

absl::StatusOr<TreeWalk> WalkDevice(PoolView& view, const ThinDevice& device) {
  TreeMergeOptions options;
  options.snapshot_root = device.mapping_root;
  options.data_blocks = view.superblock().data_blocks;
  SNAPSYNC_ASSIGN_OR_RETURN(
      const TreeMergeResult merged,
      MergeTrees(view.nodes(), options,
                 [](uint64_t, const Mapping*, const Mapping*) {}));
  SNAPSYNC_RETURN_IF_ERROR(CheckEntries(view, device, merged.snapshot));
  return merged.snapshot;
}

}  // namespace snapsync
