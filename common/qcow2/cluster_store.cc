// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/cluster_store.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "common/base/aligned_buffer.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/block/zeroes.h"
#include "common/qcow2/cluster_entry.h"

namespace snapsync::qcow2 {
namespace {

// The entry of the cluster that is `index` clusters behind the record's first.
uint64_t EntryAt(const Geometry& geometry, const MapRecord& record,
                 uint64_t index) {
  if (!HasData(record.entry) || IsCompressed(record.entry)) {
    return record.entry;
  }
  return record.entry + (index << geometry.cluster_bits);
}

// The host clusters that the bytes of an entry touch.
Extent HostClustersOf(const Geometry& geometry, uint64_t entry) {
  const Extent host = HostBytesOf(geometry, entry);
  const uint64_t first = host.offset >> geometry.cluster_bits;
  return {first, geometry.ClustersOf(host.end()) - first};
}

}  // namespace

ClusterStore::ClusterStore(const StoreOptions& options, GrowingFile* file,
                           std::vector<uint64_t> l1, HostSpace space)
    : options_(options),
      file_(file),
      space_(std::move(space)),
      queue_(file, options.write_threads),
      map_(options.geometry, std::move(l1), &space_, &queue_),
      packer_(options.geometry, &space_, &queue_) {
  if (!options.compress) return;
  line_ = std::make_unique<CompressionLine>(
      options.geometry, options.compression_type, options.compression_threads,
      [this](uint64_t cluster, std::span<const std::byte> whole,
             std::span<const std::byte> packed) {
        compressing_.erase(compressing_.find(cluster));
        return Place(cluster, whole, packed);
      });
}

absl::Status ClusterStore::Replay(StageJournal& journal) {
  uint64_t end = 0;
  const Geometry& geometry = options_.geometry;
  SNAPSYNC_RETURN_IF_ERROR(
      journal.Replay([&](const MapRecord& record) -> absl::Status {
        if (record.count == 0 || record.cluster >= map_.cluster_count() ||
            record.count > map_.cluster_count() - record.cluster ||
            !IsOurEntry(geometry, record.entry,
                        std::numeric_limits<uint64_t>::max())) {
          return Error(Reason::kBaseMismatch,
                       file_->name() + ": its journal names cluster " +
                           std::to_string(record.cluster) +
                           ", which it has not; run a full export");
        }
        if (HasData(record.entry)) {
          const Extent host = HostClustersOf(
              geometry, EntryAt(geometry, record, record.count - 1));
          end = std::max(end, host.end());
        }
        return absl::OkStatus();
      }));
  space_.BeginReplay(end);
  ClusterSet used;
  SNAPSYNC_RETURN_IF_ERROR(journal.Replay(
      [&](const MapRecord& record) { return ReplayOne(record, used); }));
  // The tables that the replay wrote are no longer in flight when what they
  // replace is used again.
  SNAPSYNC_RETURN_IF_ERROR(queue_.Wait(queue_.Submit()));
  space_.EndReplay(used);
  return absl::OkStatus();
}

absl::Status ClusterStore::ReplayOne(const MapRecord& record,
                                     ClusterSet& used) {
  const Geometry& geometry = options_.geometry;
  const auto forget = [&](uint64_t, uint64_t old) {
    // Others may share the host clusters of a compressed one.
    if (!HasData(old) || IsCompressed(old)) return;
    const Extent host = HostClustersOf(geometry, old);
    used.Remove(host.offset, host.length);
  };
  if (!HasData(record.entry)) {
    return map_.Fill(record.cluster, record.count, record.entry, forget);
  }
  for (uint64_t i = 0; i < record.count; ++i) {
    const uint64_t entry = EntryAt(geometry, record, i);
    SNAPSYNC_ASSIGN_OR_RETURN(const uint64_t old,
                              map_.Set(record.cluster + i, entry));
    forget(record.cluster + i, old);
    const Extent host = HostClustersOf(geometry, entry);
    used.Add(host.offset, host.length);
  }
  return absl::OkStatus();
}

absl::Status ClusterStore::Put(uint64_t cluster,
                               std::span<const std::byte> data) {
  if (IsZero(data)) return Clear(cluster, 1);
  if (line_ == nullptr) return Place(cluster, data, {});
  compressing_.insert(cluster);
  return line_->Add(cluster, data);
}

absl::Status ClusterStore::Place(uint64_t cluster,
                                 std::span<const std::byte> whole,
                                 std::span<const std::byte> packed) {
  uint64_t entry = 0;
  if (packed.empty()) {
    const uint64_t offset = space_.Allocate() << geometry().cluster_bits;
    SNAPSYNC_RETURN_IF_ERROR(queue_.Add(offset, whole));
    entry = StandardEntry(offset);
  } else {
    SNAPSYNC_ASSIGN_OR_RETURN(const Extent stored, packer_.Add(packed));
    entry = CompressedEntry(geometry(), stored);
  }
  SNAPSYNC_ASSIGN_OR_RETURN(const uint64_t old, map_.Set(cluster, entry));
  Forget(old);
  Remember(cluster, entry);
  return absl::OkStatus();
}

absl::Status ClusterStore::Clear(uint64_t first, uint64_t count) {
  SNAPSYNC_RETURN_IF_ERROR(Settle(first, count));
  const uint64_t entry =
      options_.backing == nullptr ? kUnallocatedEntry : kZeroEntry;
  return map_.Fill(first, count, entry, [&](uint64_t cluster, uint64_t old) {
    Forget(old);
    Remember(cluster, entry);
  });
}

absl::StatusOr<bool> ClusterStore::MayHoldData(uint64_t cluster) {
  SNAPSYNC_RETURN_IF_ERROR(Settle(cluster, 1));
  SNAPSYNC_ASSIGN_OR_RETURN(const uint64_t entry, map_.Get(cluster));
  return HasData(entry) ||
         (entry == kUnallocatedEntry && options_.backing != nullptr);
}

absl::StatusOr<std::optional<uint64_t>> ClusterStore::HostOffset(
    uint64_t cluster) {
  SNAPSYNC_RETURN_IF_ERROR(Settle(cluster, 1));
  SNAPSYNC_ASSIGN_OR_RETURN(const uint64_t entry, map_.Get(cluster));
  if (!HasData(entry) || IsCompressed(entry)) return std::nullopt;
  return entry & kEntryOffsetMask;
}

absl::Status ClusterStore::Read(uint64_t cluster, std::span<std::byte> data) {
  SNAPSYNC_RETURN_IF_ERROR(Settle(cluster, 1));
  SNAPSYNC_ASSIGN_OR_RETURN(const uint64_t entry, map_.Get(cluster));
  if (!HasData(entry)) {
    std::fill(data.begin(), data.end(), std::byte{0});
    return entry == kUnallocatedEntry ? ReadBacking(cluster, data)
                                      : absl::OkStatus();
  }
  if (IsCompressed(entry)) return ReadCompressed(entry, data);
  return queue_.Read(entry & kEntryOffsetMask, data);
}

absl::Status ClusterStore::ReadBacking(uint64_t cluster,
                                       std::span<std::byte> data) {
  if (options_.backing == nullptr) return absl::OkStatus();
  const uint64_t offset = cluster << geometry().cluster_bits;
  const uint64_t size = options_.backing->size();
  if (offset >= size) return absl::OkStatus();
  const ReadOperation read{
      offset, data.first(std::min<uint64_t>(data.size(), size - offset))};
  return options_.backing->Read({&read, 1});
}

absl::Status ClusterStore::ReadCompressed(uint64_t entry,
                                          std::span<std::byte> data) {
  SNAPSYNC_RETURN_IF_ERROR(packer_.Flush());
  constexpr uint64_t kBlock = GrowingFile::kAlignment;
  const Extent host = HostBytesOf(geometry(), entry);
  const uint64_t first = host.offset / kBlock * kBlock;
  const uint64_t end = (host.end() + kBlock - 1) / kBlock * kBlock;
  AlignedBuffer buffer(end - first);
  SNAPSYNC_RETURN_IF_ERROR(queue_.Read(first, buffer.span()));
  return Annotate(
      decoder_.Decode(options_.compression_type,
                      buffer.span().subspan(host.offset - first, host.length),
                      data),
      file_->name() + ": compressed cluster at offset " +
          std::to_string(host.offset));
}

absl::StatusOr<uint64_t> ClusterStore::Submit() {
  if (line_ != nullptr) SNAPSYNC_RETURN_IF_ERROR(line_->Drain());
  SNAPSYNC_RETURN_IF_ERROR(packer_.Flush());
  return queue_.Submit();
}

absl::Status ClusterStore::Settle(uint64_t first, uint64_t count) {
  const auto found = compressing_.lower_bound(first);
  if (found == compressing_.end() || *found - first >= count) {
    return absl::OkStatus();
  }
  return line_->Drain();
}

void ClusterStore::Forget(uint64_t entry) {
  // Nobody knows who shares the host clusters of a compressed one: they are
  // counted when the image is committed.
  if (!HasData(entry) || IsCompressed(entry)) return;
  space_.Release((entry & kEntryOffsetMask) >> geometry().cluster_bits);
}

void ClusterStore::Remember(uint64_t cluster, uint64_t entry) {
  if (!records_.empty()) {
    MapRecord& last = records_.back();
    if (last.cluster + last.count == cluster && !IsCompressed(entry) &&
        !IsCompressed(last.entry) && HasData(entry) == HasData(last.entry) &&
        entry == EntryAt(geometry(), last, last.count)) {
      ++last.count;
      return;
    }
  }
  records_.push_back({cluster, entry, 1});
}

}  // namespace snapsync::qcow2
