// SPDX-License-Identifier: Apache-2.0
#include "common/thin/delta.h"

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/thin/delta_builder.h"

namespace snapsync {
namespace {

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
                   if (!builder.Addressable(virtual_block)) {
                     beyond = virtual_block;
                   } else if (snapshot_mapping == nullptr) {
                     builder.AddGone(virtual_block, 1);
                   } else {
                     builder.AddMapped(virtual_block,
                                       base_mapping != nullptr &&
                                           base_mapping->data_block ==
                                               snapshot_mapping->data_block);
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

absl::StatusOr<TreeWalk> WalkDevice(PoolView& view, const ThinDevice& device,
                                    const MappingVisitor& visitor) {
  TreeMergeOptions options;
  options.snapshot_root = device.mapping_root;
  options.data_blocks = view.superblock().data_blocks;
  SNAPSYNC_ASSIGN_OR_RETURN(
      const TreeMergeResult merged,
      MergeTrees(
          view.nodes(), options,
          [&](uint64_t virtual_block, const Mapping*, const Mapping* mapping) {
            if (visitor) visitor(virtual_block, *mapping);
          }));
  SNAPSYNC_RETURN_IF_ERROR(CheckEntries(view, device, merged.snapshot));
  return merged.snapshot;
}

}  // namespace snapsync
