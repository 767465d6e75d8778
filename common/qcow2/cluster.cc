// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/cluster.h"

#include <algorithm>
#include <bit>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"

namespace snapsync::qcow2 {
namespace {

constexpr uint64_t kL1EntryReserved = ~(kEntryOffsetMask | kEntryCopied);
constexpr uint64_t kL2EntryReserved = kL1EntryReserved & ~kL2Zero;
constexpr unsigned kMaxHostOffsetBits = 56;
constexpr uint32_t kAll = UINT32_MAX;

std::string Hex(uint64_t value) {
  return absl::StrCat("0x", absl::Hex(value, absl::kZeroPad16));
}

}  // namespace

ClusterRules::ClusterRules(const Header& header, const HostFile& file,
                           const HostFile* data_file)
    : header_(header), file_(file), data_file_(data_file) {}

absl::StatusOr<uint64_t> ClusterRules::ParseL1Entry(uint64_t entry, uint64_t at,
                                                    uint64_t index) const {
  if (entry == 0) return uint64_t{0};
  const Where where{entry, at, index * header_.l1_entry_reach()};
  if ((entry & kL1EntryReserved) != 0) {
    return Damaged(where, "uses reserved bits");
  }
  const uint64_t offset = entry & kEntryOffsetMask;
  if (offset == 0) return Damaged(where, "has a refcount, but no L2 table");
  if (offset % header_.cluster_size() != 0) {
    return Damaged(where, "points into a cluster");
  }
  if (!file_.Has(offset, NeededL2Bytes(index))) {
    return Damaged(
        where, absl::StrCat("points beyond the end of the file (", file_.size(),
                            " bytes): is it truncated?"));
  }
  return offset;
}

uint64_t ClusterRules::NeededL2Bytes(uint64_t index) const {
  const uint64_t begin = index * header_.l1_entry_reach();
  const uint64_t reach =
      std::min(header_.l1_entry_reach(), header_.disk_size() - begin);
  const uint64_t clusters =
      (reach + header_.cluster_size() - 1) >> header_.cluster_bits;
  return clusters * header_.l2_entry_bytes();
}

absl::StatusOr<Cluster> ClusterRules::ParseL2Entry(
    const std::byte* bytes, uint64_t at, uint64_t guest_offset) const {
  const auto entry = LoadBig<uint64_t>(bytes);
  uint32_t data = 0;
  uint32_t zeroes = 0;
  const Where where{entry, at, guest_offset};
  if (header_.extended_l2()) {
    zeroes = LoadBig<uint32_t>(bytes + 8);
    data = LoadBig<uint32_t>(bytes + 12);
  }
  if ((entry & kL2Compressed) != 0) {
    if (data != 0 || zeroes != 0) {
      return Damaged(where, "is compressed and has subclusters");
    }
    return ParseCompressed(where);
  }
  if (entry == 0 && data == 0 && zeroes == 0) return Cluster{};
  if ((entry & kL2EntryReserved) != 0) {
    return Damaged(where, "uses reserved bits");
  }
  const uint64_t host_offset = entry & kEntryOffsetMask;
  if (host_offset % header_.cluster_size() != 0) {
    return Damaged(where, "points into a cluster");
  }
  // In an external data file a cluster may be the first one.
  const bool copied = (entry & kEntryCopied) != 0;
  const bool has_host = host_offset != 0 || (data_file_ != nullptr && copied);
  if (copied && !has_host) {
    return Damaged(where, "has a refcount, but no host cluster");
  }
  if (header_.extended_l2()) {
    if ((entry & kL2Zero) != 0) return Damaged(where, "uses reserved bits");
    if ((data & zeroes) != 0) {
      return Damaged(where, "has subclusters with data that read as zeroes");
    }
    if (data != 0 && !has_host) {
      return Damaged(where, "has subclusters with data, but no host cluster");
    }
  } else if ((entry & kL2Zero) != 0) {
    if (header_.version == 2) {
      return Damaged(where, "reads as zeroes, which version 2 does not know");
    }
    zeroes = kAll;
  } else {
    data = kAll;
  }
  if (has_host) {
    SNAPSYNC_RETURN_IF_ERROR(CheckHostCluster(where, host_offset, data));
  }
  Cluster cluster;
  cluster.data = data;
  cluster.zeroes = zeroes;
  cluster.host_offset = host_offset;
  return cluster;
}

absl::Status ClusterRules::CheckHostCluster(const Where& where,
                                            uint64_t host_offset,
                                            uint32_t data) const {
  const HostFile& file = data_file_ != nullptr ? *data_file_ : file_;
  if (data_file_ != nullptr && host_offset != where.guest_offset) {
    return Damaged(where, "points to another place of the external data file");
  }
  if (data == 0) {
    // Preallocated: nothing of it is needed.
    if (data_file_ != nullptr || host_offset < file.size()) {
      return absl::OkStatus();
    }
    return Damaged(where, "points beyond the end of the file");
  }
  const auto last = static_cast<unsigned>(32 - std::countl_zero(data));
  const uint64_t needed = std::min(header_.cluster_size() / kSubclusters * last,
                                   header_.disk_size() - where.guest_offset);
  if (!file.Has(host_offset, needed)) {
    return Damaged(
        where, absl::StrCat("has data beyond the end of ", file.name(), " (",
                            file.size(), " bytes): is it truncated?"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Cluster> ClusterRules::ParseCompressed(
    const Where& where) const {
  if (data_file_ != nullptr) {
    return Damaged(where, "is compressed, in an image with a data file");
  }
  if ((where.entry & kEntryCopied) != 0) {
    return Damaged(where, "is compressed and uses a reserved bit");
  }
  // The lower bits are the offset, those above it a number of sectors.
  const unsigned offset_bits = 62 - (header_.cluster_bits - 8);
  const uint64_t offset_mask = (uint64_t{1} << offset_bits) - 1;
  Cluster cluster;
  cluster.compressed = true;
  cluster.host_offset = where.entry & offset_mask;
  if (cluster.host_offset >> kMaxHostOffsetBits != 0) {
    return Damaged(where, "uses reserved bits");
  }
  const uint64_t more_sectors =
      (where.entry & (kL2Compressed - 1)) >> offset_bits;
  cluster.stream_bytes =
      (more_sectors + 1) * kSectorBytes - cluster.host_offset % kSectorBytes;
  // The padding of the last sector need not be there.
  const uint64_t end = (file_.size() + kSectorBytes - 1) & ~(kSectorBytes - 1);
  if (cluster.host_offset >= file_.size() ||
      cluster.stream_bytes > end - cluster.host_offset) {
    return Damaged(where,
                   absl::StrCat("has data beyond the end of the file (",
                                file_.size(), " bytes): is it truncated?"));
  }
  return cluster;
}

absl::Status ClusterRules::Damaged(const Where& where,
                                   const std::string& why) const {
  return Error(
      Reason::kIo,
      absl::StrCat(file_.name(), ": damaged: the entry at offset ", where.at,
                   " (", Hex(where.entry), ") for the disk's offset ",
                   where.guest_offset, " ", why));
}

}  // namespace snapsync::qcow2
