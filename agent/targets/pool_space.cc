// SPDX-License-Identifier: Apache-2.0
#include "agent/targets/pool_space.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"

namespace snapsync {
namespace {

constexpr uint64_t kMetadataBlockBytes = 4 * kKiB;
constexpr uint64_t kReserveBytes = kGiB;
constexpr uint64_t kReserveMetadataBlocks = 16 * kMiB / kMetadataBlockBytes;
constexpr uint64_t kReservePercent = 5;
// Mappings in a leaf of the B-tree that is half full, as splitting leaves them.
constexpr uint64_t kMappingsPerLeaf = 126;
// Inner nodes, space maps, and what a commit needs for itself.
constexpr uint64_t kMetadataOverhead = 32;

// Room for less than this, in blocks, is none.
uint64_t Reserve(uint64_t total, uint64_t most) {
  return std::min(total * kReservePercent / 100, most);
}

uint64_t Free(uint64_t used, uint64_t total) {
  return total - std::min(used, total);
}

class WatchedWriter final : public BlockWriter {
 public:
  WatchedWriter(PoolSpace space, std::unique_ptr<BlockWriter> writer)
      : space_(std::move(space)), writer_(std::move(writer)) {}

  const std::string& name() const override { return writer_->name(); }
  uint64_t size() const override { return writer_->size(); }

  absl::Status Write(std::span<const WriteOperation> operations) override {
    const uint64_t block = space_.block_bytes();
    uint64_t blocks = 0;
    uint64_t last = UINT64_MAX;
    for (const WriteOperation& operation : operations) {
      if (operation.data.empty()) continue;
      const uint64_t first = operation.offset / block;
      const uint64_t end =
          (operation.offset + operation.data.size() - 1) / block;
      blocks += end - first + (first == last ? 0 : 1);
      last = end;
    }
    SNAPSYNC_RETURN_IF_ERROR(space_.CheckRoom(blocks * block, 0));
    return writer_->Write(operations);
  }

  // Discards, and writes at most to the blocks at the two ends.
  absl::Status Zero(Extent extent) override {
    SNAPSYNC_RETURN_IF_ERROR(space_.CheckRoom(2 * space_.block_bytes(), 0));
    return writer_->Zero(extent);
  }

  absl::Status Flush() override { return writer_->Flush(); }
  absl::Status ReadBack(std::span<const ReadOperation> operations) override {
    return writer_->ReadBack(operations);
  }
  bool copies() const override { return writer_->copies(); }

 private:
  const PoolSpace space_;
  const std::unique_ptr<BlockWriter> writer_;
};

}  // namespace

PoolSpace::PoolSpace(const PoolTarget& pool, const std::string& name)
    : pool_(pool),
      name_("thin pool " + name),
      block_bytes_(pool.data_block_sectors * kSectorBytes) {}

absl::Status PoolSpace::Check(const PoolStatus& status) const {
  if (status.failed) {
    return Error(Reason::kTargetUnsuitable, name_ + " has failed");
  }
  if (status.needs_check) {
    return Error(Reason::kTargetUnsuitable,
                 name_ +
                     ": its metadata could not be written and has to be "
                     "checked (needs_check); docs/operating.md has how");
  }
  if (status.mode == "out_of_data_space") {
    return Error(Reason::kNoSpace,
                 name_ + " is full; enlarge it (lvextend) or remove snapshots");
  }
  if (status.mode != "rw") {
    return Error(Reason::kTargetUnsuitable,
                 name_ + " takes no writes (mode " + status.mode + ")");
  }
  return absl::OkStatus();
}

absl::Status PoolSpace::CheckUsable() const {
  SNAPSYNC_ASSIGN_OR_RETURN(const PoolStatus status, ReadPoolStatus(pool_));
  return Check(status);
}

absl::Status PoolSpace::CheckMetadata() const {
  const absl::Status status = CheckUsable();
  if (!status.ok() && ReasonOf(status) == Reason::kNoSpace) {
    return absl::OkStatus();
  }
  return status;
}

absl::Status PoolSpace::CheckRoom(uint64_t new_bytes,
                                  uint64_t mapped_bytes) const {
  SNAPSYNC_ASSIGN_OR_RETURN(const PoolStatus status, ReadPoolStatus(pool_));
  SNAPSYNC_RETURN_IF_ERROR(Check(status));
  const uint64_t blocks = new_bytes / block_bytes_;
  const uint64_t free = Free(status.used_data_blocks, status.total_data_blocks);
  const uint64_t reserve =
      Reserve(status.total_data_blocks, kReserveBytes / block_bytes_);
  if (free < blocks + reserve) {
    return Error(
        Reason::kNoSpace,
        absl::StrCat(name_, " has ", FormatBytes(free * block_bytes_),
                     " free: too little for ", FormatBytes(new_bytes),
                     " and a reserve of ", FormatBytes(reserve * block_bytes_),
                     "; enlarge it (lvextend) or remove snapshots, and run the "
                     "same again"));
  }
  // Each leaf that is changed is written anew, the old one stays with the
  // snapshot; and new leaves.
  const uint64_t metadata =
      std::min(blocks, mapped_bytes / block_bytes_ / kMappingsPerLeaf) +
      blocks / kMappingsPerLeaf + kMetadataOverhead;
  const uint64_t metadata_free =
      Free(status.used_metadata_blocks, status.total_metadata_blocks);
  const uint64_t metadata_reserve =
      Reserve(status.total_metadata_blocks, kReserveMetadataBlocks);
  if (metadata_free < metadata + metadata_reserve) {
    return Error(
        Reason::kNoSpace,
        absl::StrCat(
            name_, " has ", FormatBytes(metadata_free * kMetadataBlockBytes),
            " of its metadata free: too little for ",
            FormatBytes(metadata * kMetadataBlockBytes), " and a reserve of ",
            FormatBytes(metadata_reserve * kMetadataBlockBytes),
            "; enlarge it (lvextend --poolmetadatasize), and run the "
            "same again"));
  }
  return absl::OkStatus();
}

std::unique_ptr<BlockWriter> PoolSpace::Watch(
    std::unique_ptr<BlockWriter> writer) const {
  return std::make_unique<WatchedWriter>(*this, std::move(writer));
}

}  // namespace snapsync
