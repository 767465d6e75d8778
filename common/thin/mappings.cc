// SPDX-License-Identifier: Apache-2.0
#include "common/thin/mappings.h"

#include "absl/strings/str_cat.h"
#include "common/base/aligned_buffer.h"
#include "common/base/endian.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace snapsync {
namespace {

absl::StatusOr<std::vector<std::byte>> ReadBlock0(MetadataReader& reader) {
  AlignedBuffer buffer(kMetadataBlockSize);
  const uint64_t blocks[] = {0};
  SNAPSYNC_RETURN_IF_ERROR(reader.Read(blocks, buffer.span()));
  return std::vector<std::byte>(buffer.span().begin(), buffer.span().end());
}

}  // namespace

absl::StatusOr<PoolView> PoolView::Open(MetadataReader& reader,
                                        bool held_root) {
  PoolView view;
  view.reader_ = &reader;
  SNAPSYNC_ASSIGN_OR_RETURN(view.superblock_,
                            ReadSuperblock(reader, held_root));
  view.superblocks_read_ = held_root ? 2 : 1;
  view.nodes_ =
      std::make_unique<NodeReader>(reader, view.superblock_.metadata_blocks);
  return view;
}

absl::StatusOr<PoolView> PoolView::OpenUnheld(MetadataReader& reader) {
  SNAPSYNC_ASSIGN_OR_RETURN(std::vector<std::byte> before, ReadBlock0(reader));
  SNAPSYNC_ASSIGN_OR_RETURN(PoolView view, Open(reader, false));
  view.unheld_superblock_ = std::move(before);
  SNAPSYNC_RETURN_IF_ERROR(view.CheckUnchanged());
  return view;
}

absl::Status PoolView::CheckUnchanged() {
  if (unheld_superblock_.empty()) return absl::OkStatus();
  SNAPSYNC_ASSIGN_OR_RETURN(const std::vector<std::byte> now,
                            ReadBlock0(*reader_));
  ++superblocks_read_;
  if (now == unheld_superblock_) return absl::OkStatus();
  return Error(Reason::kBusy,
               absl::StrCat(name(),
                            ": the metadata changed while it was "
                            "read; try again"));
}

absl::StatusOr<std::optional<ThinDevice>> PoolView::FindDevice(uint32_t id) {
  SNAPSYNC_ASSIGN_OR_RETURN(
      const auto root,
      nodes_->Find(superblock_.data_mapping_root, id, kMappingValueSize));
  SNAPSYNC_ASSIGN_OR_RETURN(
      const auto details,
      nodes_->Find(superblock_.device_details_root, id, kDetailsValueSize));
  // Before anything is made of what was found: it may be torn.
  SNAPSYNC_RETURN_IF_ERROR(CheckUnchanged());
  std::optional<ThinDevice>& device = found_[id];
  device.reset();
  if (root.has_value() != details.has_value()) {
    return DamagedMetadata(name(),
                           details ? superblock_.device_details_root
                                   : superblock_.data_mapping_root,
                           absl::StrCat("thin device ", id),
                           details ? "its details without a mapping tree"
                                   : "its mapping tree without details",
                           "both or none");
  }
  if (!root) return device;
  ThinDevice found;
  found.id = id;
  found.mapping_root = LoadLittle<uint64_t>(root->data());
  found.mapped_blocks =
      LoadLittle<uint64_t>(details->data() + kDetailsMappedBlocksAt);
  found.transaction_id =
      LoadLittle<uint64_t>(details->data() + kDetailsTransactionAt);
  found.creation_time =
      LoadLittle<uint32_t>(details->data() + kDetailsCreationTimeAt);
  found.snapshotted_time =
      LoadLittle<uint32_t>(details->data() + kDetailsSnapshottedTimeAt);
  if (found.mapping_root == 0 ||
      found.mapping_root >= superblock_.metadata_blocks) {
    return DamagedMetadata(
        name(), superblock_.data_mapping_root,
        absl::StrCat("root of the mapping tree of thin device ", id),
        absl::StrCat(found.mapping_root),
        absl::StrCat("1 to ", superblock_.metadata_blocks - 1));
  }
  device = found;
  return device;
}

absl::StatusOr<ThinDevice> PoolView::RequireDevice(uint32_t id) {
  SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<ThinDevice> device,
                            FindDevice(id));
  if (!device) {
    return Error(Reason::kUsage,
                 absl::StrCat(name(), ": the pool has no thin device ", id,
                              "; `thin_ls` or `lvs -o name,thin_id` lists "
                              "those it has"));
  }
  return *device;
}

}  // namespace snapsync
