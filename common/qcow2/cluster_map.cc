// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/cluster_map.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "common/base/aligned_buffer.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/qcow2/cluster_entry.h"
#include "common/qcow2/format.h"

namespace snapsync::qcow2 {
namespace {

// Of the largest clusters: a table being read and one being compared with.
constexpr size_t kCachedMin = 4;

}  // namespace

ClusterMap::ClusterMap(const Geometry& geometry, std::vector<uint64_t> l1,
                       HostSpace* space, WriteQueue* queue)
    : geometry_(geometry),
      table_entries_(geometry.table_entries()),
      cached_max_(std::max<size_t>(kCachedMin,
                                   kCachedBytes / geometry.cluster_bytes())),
      l1_(std::move(l1)),
      space_(space),
      queue_(queue) {}

absl::StatusOr<std::vector<uint64_t>> ClusterMap::ReadTable(
    uint64_t host_offset) {
  const bool committed = !space_->IsOurs(host_offset >> geometry_.cluster_bits);
  AlignedBuffer buffer(geometry_.cluster_bytes());
  SNAPSYNC_RETURN_IF_ERROR(queue_->Read(host_offset, buffer.span()));
  std::vector<uint64_t> entries(table_entries_);
  for (uint64_t i = 0; i < table_entries_; ++i) {
    entries[i] = LoadBig<uint64_t>(buffer.data() + i * 8);
    // What the committed image uses must not be what we write to.
    const bool sound =
        IsOurEntry(geometry_, entries[i], space_->end()) &&
        (!committed || !HasData(entries[i]) ||
         !space_->IsOurs(HostBytesOf(geometry_, entries[i]).offset >>
                         geometry_.cluster_bits));
    if (!sound) {
      return Error(Reason::kBaseMismatch,
                   "entry " + std::to_string(i) +
                       " of the L2 table at offset " +
                       std::to_string(host_offset) +
                       " is not one that was written by an export; run a full "
                       "export");
    }
  }
  return entries;
}

absl::StatusOr<ClusterMap::CachedTable*> ClusterMap::Load(uint64_t index) {
  if (const auto found = cached_.find(index); found != cached_.end()) {
    cache_.splice(cache_.begin(), cache_, found->second);
    return &cache_.front();
  }
  if (cache_.size() >= cached_max_) {
    SNAPSYNC_RETURN_IF_ERROR(Store(cache_.back()));
    cached_.erase(cache_.back().index);
    cache_.pop_back();
  }
  CachedTable table;
  table.index = index;
  if (l1_[index] == 0) {
    table.entries.resize(table_entries_);
  } else {
    SNAPSYNC_ASSIGN_OR_RETURN(table.entries, ReadTable(l1_[index]));
  }
  cache_.push_front(std::move(table));
  cached_[index] = cache_.begin();
  return &cache_.front();
}

absl::Status ClusterMap::Store(CachedTable& table) {
  if (!table.changed) return absl::OkStatus();
  uint64_t& offset = l1_[table.index];
  if (offset != 0) space_->Release(offset >> geometry_.cluster_bits);
  offset = 0;
  table.changed = false;
  if (std::all_of(table.entries.begin(), table.entries.end(),
                  [](uint64_t entry) { return entry == kUnallocatedEntry; })) {
    return absl::OkStatus();
  }
  offset = space_->Allocate() << geometry_.cluster_bits;
  std::vector<std::byte> bytes(geometry_.cluster_bytes());
  for (uint64_t i = 0; i < table_entries_; ++i) {
    StoreBig(bytes.data() + i * 8, table.entries[i]);
  }
  return queue_->Add(offset, bytes);
}

absl::StatusOr<uint64_t> ClusterMap::Get(uint64_t cluster) {
  const uint64_t index = cluster / table_entries_;
  if (l1_[index] == 0 && !cached_.contains(index)) return kUnallocatedEntry;
  SNAPSYNC_ASSIGN_OR_RETURN(const CachedTable* table, Load(index));
  return table->entries[cluster % table_entries_];
}

absl::StatusOr<uint64_t> ClusterMap::Set(uint64_t cluster, uint64_t entry) {
  SNAPSYNC_ASSIGN_OR_RETURN(CachedTable * table,
                            Load(cluster / table_entries_));
  table->changed = true;
  return std::exchange(table->entries[cluster % table_entries_], entry);
}

absl::Status ClusterMap::Fill(uint64_t first, uint64_t count, uint64_t entry,
                              const Changed& changed) {
  const uint64_t end = first + count;
  for (uint64_t cluster = first; cluster < end;) {
    const uint64_t index = cluster / table_entries_;
    const uint64_t table_end = std::min(end, (index + 1) * table_entries_);
    if (entry == kUnallocatedEntry && l1_[index] == 0 &&
        !cached_.contains(index)) {
      cluster = table_end;
      continue;
    }
    SNAPSYNC_ASSIGN_OR_RETURN(CachedTable * table, Load(index));
    for (; cluster < table_end; ++cluster) {
      uint64_t& at = table->entries[cluster % table_entries_];
      if (at == entry) continue;
      table->changed = true;
      changed(cluster, std::exchange(at, entry));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::span<const uint64_t>> ClusterMap::Table(uint64_t index) {
  if (l1_[index] == 0 && !cached_.contains(index)) {
    return std::span<const uint64_t>();
  }
  SNAPSYNC_ASSIGN_OR_RETURN(const CachedTable* table, Load(index));
  return std::span<const uint64_t>(table->entries);
}

absl::Status ClusterMap::WriteOut() {
  for (CachedTable& table : cache_) {
    SNAPSYNC_RETURN_IF_ERROR(Store(table));
  }
  return absl::OkStatus();
}

}  // namespace snapsync::qcow2
