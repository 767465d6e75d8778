// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/refcount_update.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "common/base/aligned_buffer.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/qcow2/cluster_entry.h"
#include "common/qcow2/format.h"
#include "common/qcow2/table_writer.h"

namespace snapsync::qcow2 {

RefcountUpdate::RefcountUpdate(ClusterStore* store,
                               std::vector<uint64_t> blocks, Extent table)
    : store_(store), blocks_(std::move(blocks)), table_(table) {}

absl::StatusOr<uint16_t*> RefcountUpdate::Find(uint64_t host_cluster) {
  const Geometry& geometry = store_->geometry();
  const uint64_t index = host_cluster / geometry.block_entries();
  auto found = changed_.find(index);
  if (found == changed_.end()) {
    Block block;
    block.counts.resize(geometry.block_entries());
    if (index < blocks_.size() && blocks_[index] != 0) {
      AlignedBuffer buffer(geometry.cluster_bytes());
      SNAPSYNC_RETURN_IF_ERROR(
          store_->queue().Read(blocks_[index], buffer.span()));
      for (size_t i = 0; i < block.counts.size(); ++i) {
        block.counts[i] = LoadBig<uint16_t>(buffer.data() + i * 2);
      }
    }
    found = changed_.emplace(index, std::move(block)).first;
  }
  return &found->second.counts[host_cluster % geometry.block_entries()];
}

absl::Status RefcountUpdate::Increment(uint64_t host_cluster, bool shared) {
  SNAPSYNC_ASSIGN_OR_RETURN(uint16_t* const count, Find(host_cluster));
  if (*count == std::numeric_limits<uint16_t>::max() ||
      (!shared && *count != 0)) {
    return Error(Reason::kBaseMismatch,
                 store_->file().name() + ": host cluster " +
                     std::to_string(host_cluster) +
                     " is in use, which its refcount did not say; run a full "
                     "export");
  }
  ++*count;
  return absl::OkStatus();
}

absl::Status RefcountUpdate::Decrement(uint64_t host_cluster, bool shared) {
  SNAPSYNC_ASSIGN_OR_RETURN(uint16_t* const count, Find(host_cluster));
  if (*count == 0 || (!shared && *count != 1) ||
      store_->space().IsOurs(host_cluster)) {
    return Error(Reason::kBaseMismatch,
                 store_->file().name() + ": the refcount of host cluster " +
                     std::to_string(host_cluster) + " is " +
                     std::to_string(*count) +
                     ", which is not what its tables say; run a full export");
  }
  if (--*count == 0) dropped_.Add(host_cluster, 1);
  return absl::OkStatus();
}

absl::Status RefcountUpdate::Add(uint64_t first, uint64_t count) {
  for (uint64_t at = first; at < first + count; ++at) {
    SNAPSYNC_RETURN_IF_ERROR(Increment(at, false));
  }
  return absl::OkStatus();
}

absl::Status RefcountUpdate::Drop(uint64_t first, uint64_t count) {
  for (uint64_t at = first; at < first + count; ++at) {
    SNAPSYNC_RETURN_IF_ERROR(Decrement(at, false));
  }
  return absl::OkStatus();
}

absl::Status RefcountUpdate::AddEntry(uint64_t entry) {
  if (!HasData(entry)) return absl::OkStatus();
  const Geometry& geometry = store_->geometry();
  const Extent host = HostBytesOf(geometry, entry);
  for (uint64_t at = host.offset >> geometry.cluster_bits;
       at < geometry.ClustersOf(host.end()); ++at) {
    SNAPSYNC_RETURN_IF_ERROR(Increment(at, IsCompressed(entry)));
  }
  return absl::OkStatus();
}

absl::Status RefcountUpdate::DropEntry(uint64_t entry) {
  if (!HasData(entry)) return absl::OkStatus();
  const Geometry& geometry = store_->geometry();
  const Extent host = HostBytesOf(geometry, entry);
  for (uint64_t at = host.offset >> geometry.cluster_bits;
       at < geometry.ClustersOf(host.end()); ++at) {
    SNAPSYNC_RETURN_IF_ERROR(Decrement(at, IsCompressed(entry)));
  }
  return absl::OkStatus();
}

absl::Status RefcountUpdate::PlaceBlocks() {
  for (bool placed = true; placed;) {
    placed = false;
    // Blocks that are added while this goes on are met now or by the next
    // round.
    for (auto& [index, block] : changed_) {
      if (block.host_cluster != 0) continue;
      block.host_cluster = store_->space().Allocate();
      SNAPSYNC_RETURN_IF_ERROR(Add(block.host_cluster, 1));
      if (index < blocks_.size() && blocks_[index] != 0) {
        SNAPSYNC_RETURN_IF_ERROR(
            Drop(blocks_[index] >> store_->geometry().cluster_bits, 1));
      }
      placed = true;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Extent> RefcountUpdate::Write() {
  const Geometry& geometry = store_->geometry();
  SNAPSYNC_RETURN_IF_ERROR(Drop(table_.offset, table_.length));
  // Placing the table may make a block more, and that the table longer.
  Extent table;
  for (;;) {
    SNAPSYNC_RETURN_IF_ERROR(PlaceBlocks());
    const uint64_t entries =
        std::max<uint64_t>(blocks_.size(), changed_.rbegin()->first + 1);
    const uint64_t needed = geometry.ClustersOf(entries * 8);
    if (needed <= table.length) break;
    for (uint64_t at = table.offset; at < table.offset + table.length; ++at) {
      SNAPSYNC_ASSIGN_OR_RETURN(uint16_t* const count, Find(at));
      *count = 0;
    }
    table = {store_->space().Allocate(needed), needed};
    SNAPSYNC_RETURN_IF_ERROR(Add(table.offset, table.length));
  }
  if (table.length * geometry.cluster_bytes() >
      std::max(Geometry::kMaxRefcountTableBytes, geometry.cluster_bytes())) {
    return Error(Reason::kTargetUnsuitable,
                 store_->file().name() +
                     " has too many clusters for the format; run a full "
                     "export with larger ones");
  }
  blocks_.resize(table.length * geometry.table_entries());
  for (const auto& [index, block] : changed_) {
    blocks_[index] = block.host_cluster << geometry.cluster_bits;
    std::vector<std::byte> bytes(geometry.cluster_bytes());
    for (size_t i = 0; i < block.counts.size(); ++i) {
      StoreBig(bytes.data() + i * 2, block.counts[i]);
    }
    SNAPSYNC_RETURN_IF_ERROR(store_->queue().Add(blocks_[index], bytes));
  }
  SNAPSYNC_RETURN_IF_ERROR(WriteTable(*store_, table.offset, blocks_, 0));
  return table;
}

}  // namespace snapsync::qcow2
