// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/metadata_check.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "common/block/zeroes.h"
#include "common/qcow2/cluster.h"
#include "common/qcow2/ownership.h"

namespace snapsync::qcow2 {
namespace {

constexpr size_t kOwnershipBytes = 128 * kMiB;
// Starts of compressed streams that are compared at a time: 64 MiB.
constexpr size_t kStreamsAtATime = size_t{8} << 20U;
constexpr uint64_t kEntryBytes = 8;

// Of an entry in the table of snapshots: the fixed part, and what is in it.
constexpr uint64_t kSnapshotBytes = 40;
constexpr size_t kSnapshotIdLengthAt = 12;
constexpr size_t kSnapshotNameLengthAt = 14;
constexpr size_t kSnapshotExtraLengthAt = 36;
constexpr uint64_t kMaxSnapshotExtraBytes = 1024;  // QEMU's limit

class Checker {
 public:
  Checker(const Header& header, const HostFile& file, const HostFile* data_file,
          TableReader& tables, const std::function<void()>& at_work)
      : header_(header),
        file_(file),
        data_file_(data_file),
        rules_(header, file, data_file),
        tables_(tables),
        at_work_(at_work),
        ownership_(header.cluster_bits, kOwnershipBytes),
        streams_(kStreamsAtATime) {}

  absl::Status Check() {
    SNAPSYNC_RETURN_IF_ERROR(
        Claim({0, header_.cluster_size()}, "the header", 0));
    SNAPSYNC_RETURN_IF_ERROR(
        Claim({header_.l1_offset, header_.l1_entries * kEntryBytes},
              "the L1 table", header_.l1_offset));
    // A dirty image's refcounts are to be made anew.
    if (!header_.dirty()) SNAPSYNC_RETURN_IF_ERROR(CheckRefcounts());
    SNAPSYNC_RETURN_IF_ERROR(CheckSnapshots());
    if (header_.bitmaps) {
      SNAPSYNC_RETURN_IF_ERROR(
          Claim({header_.bitmaps->offset, header_.bitmaps->bytes},
                "the directory of bitmaps", header_.bitmaps->offset));
    }
    SNAPSYNC_RETURN_IF_ERROR(WalkL1());
    while (streams_.NeedsAnotherPass()) {
      first_pass_ = false;
      SNAPSYNC_RETURN_IF_ERROR(WalkL1());
    }
    if (streams_.found()) {
      return Damaged("two compressed clusters begin at one place");
    }
    return absl::OkStatus();
  }

 private:
  absl::Status CheckRefcounts() {
    const Extent table{
        header_.refcount_table_offset,
        header_.refcount_table_clusters * header_.cluster_size()};
    SNAPSYNC_RETURN_IF_ERROR(Claim(table, "the refcount table", table.offset));
    TableReader::Cursor cursor(tables_);
    for (uint64_t at = table.offset; at < table.end();) {
      size_t available = 0;
      SNAPSYNC_ASSIGN_OR_RETURN(const std::byte* bytes,
                                cursor.At(at, &available));
      const uint64_t end = std::min<uint64_t>(at + available, table.end());
      at_work_();
      for (; at < end; at += kEntryBytes, bytes += kEntryBytes) {
        const auto block = LoadBig<uint64_t>(bytes);
        if (block == 0) continue;
        if (block % header_.cluster_size() != 0 ||
            !file_.Has(block, header_.cluster_size())) {
          return Damaged(absl::StrCat("the refcount table's entry at offset ",
                                      at, " points to offset ", block,
                                      ", which is no cluster within the file (",
                                      file_.size(), " bytes)"));
        }
        SNAPSYNC_RETURN_IF_ERROR(Claim({block, header_.cluster_size()},
                                       "a block of refcounts", block));
      }
    }
    return absl::OkStatus();
  }

  absl::Status CheckSnapshots() {
    uint64_t at = header_.snapshots_offset;
    for (uint32_t index = 0; index < header_.snapshots; ++index) {
      if (!file_.Has(at, kSnapshotBytes)) return CutSnapshots(index);
      std::array<std::byte, kSnapshotBytes> head{};
      SNAPSYNC_RETURN_IF_ERROR(file_.Read(at, head));
      const auto extra =
          LoadBig<uint32_t>(head.data() + kSnapshotExtraLengthAt);
      if (extra > kMaxSnapshotExtraBytes) {
        return Damaged(absl::StrCat("snapshot ", index, " at offset ", at,
                                    " has ", extra,
                                    " bytes of extra data; 1024 are the "
                                    "limit"));
      }
      const uint64_t bytes =
          kSnapshotBytes + extra +
          LoadBig<uint16_t>(head.data() + kSnapshotIdLengthAt) +
          LoadBig<uint16_t>(head.data() + kSnapshotNameLengthAt);
      if (!file_.Has(at, bytes)) return CutSnapshots(index);
      at += (bytes + 7) / 8 * 8;
      at_work_();
    }
    return Claim({header_.snapshots_offset, at - header_.snapshots_offset},
                 "the table of snapshots", header_.snapshots_offset);
  }

  absl::Status CutSnapshots(uint32_t index) const {
    return Damaged(absl::StrCat("snapshot ", index, " of ", header_.snapshots,
                                " lies beyond the end of the file (",
                                file_.size(), " bytes): is it truncated?"));
  }

  absl::Status WalkL1() {
    TableReader::Cursor cursor(tables_);
    const uint64_t needed = header_.needed_l1_entries();
    for (uint64_t index = 0; index < needed;) {
      const uint64_t at = header_.l1_offset + index * kEntryBytes;
      size_t available = 0;
      SNAPSYNC_ASSIGN_OR_RETURN(const std::byte* bytes,
                                cursor.At(at, &available));
      at_work_();
      const uint64_t count =
          std::min<uint64_t>(available / kEntryBytes, needed - index);
      if (IsZero({bytes, count * kEntryBytes})) {
        index += count;
        continue;
      }
      for (const uint64_t end = index + count; index < end;
           ++index, bytes += kEntryBytes) {
        SNAPSYNC_ASSIGN_OR_RETURN(
            const uint64_t table,
            rules_.ParseL1Entry(LoadBig<uint64_t>(bytes),
                                header_.l1_offset + index * kEntryBytes,
                                index));
        if (table == 0) continue;
        if (first_pass_) {
          SNAPSYNC_RETURN_IF_ERROR(Claim({table, header_.cluster_size()},
                                         "an L2 table",
                                         index * header_.l1_entry_reach()));
        }
        SNAPSYNC_RETURN_IF_ERROR(WalkL2(table, index));
      }
    }
    return absl::OkStatus();
  }

  absl::Status WalkL2(uint64_t table, uint64_t index) {
    TableReader::Cursor cursor(tables_);
    const uint64_t end = table + rules_.NeededL2Bytes(index);
    uint64_t guest_offset = index * header_.l1_entry_reach();
    for (uint64_t at = table; at < end;) {
      size_t available = 0;
      SNAPSYNC_ASSIGN_OR_RETURN(const std::byte* bytes,
                                cursor.At(at, &available));
      at_work_();
      const uint64_t length = std::min<uint64_t>(available, end - at);
      const uint64_t entry_bytes = header_.l2_entry_bytes();
      if (IsZero({bytes, length})) {
        at += length;
        guest_offset += length / entry_bytes * header_.cluster_size();
        continue;
      }
      for (const uint64_t stop = at + length; at < stop; at += entry_bytes,
                          bytes += entry_bytes,
                          guest_offset += header_.cluster_size()) {
        SNAPSYNC_ASSIGN_OR_RETURN(const Cluster cluster,
                                  rules_.ParseL2Entry(bytes, at, guest_offset));
        if (first_pass_) {
          SNAPSYNC_RETURN_IF_ERROR(TakeCluster(cluster, guest_offset));
        } else if (cluster.compressed) {
          streams_.Add(cluster.host_offset);
        }
      }
    }
    return absl::OkStatus();
  }

  absl::Status TakeCluster(const Cluster& cluster, uint64_t guest_offset) {
    if (cluster.host_offset == 0 || data_file_ != nullptr) {
      return absl::OkStatus();
    }
    if (!cluster.compressed) {
      return Claim({cluster.host_offset, header_.cluster_size()},
                   "a cluster of data", guest_offset);
    }
    ++stream_count_;
    stream_bytes_ += cluster.stream_bytes;
    // A stream's last sector may be the next one's first.
    if (stream_bytes_ > file_.size() + stream_count_ * kSectorBytes) {
      return Damaged("compressed clusters share their bytes");
    }
    streams_.Add(cluster.host_offset);
    return Judge(
        ownership_.ClaimShared({cluster.host_offset, cluster.stream_bytes}),
        cluster.host_offset, "a compressed cluster", guest_offset);
  }

  // `of` is the place in the disk, or for tables that are not of a place in the
  // disk the one in the file.
  absl::Status Claim(Extent bytes, std::string_view what, uint64_t of) {
    return Judge(ownership_.ClaimAlone(bytes), bytes.offset, what, of);
  }

  absl::Status Judge(Ownership::Claim claim, uint64_t host_offset,
                     std::string_view what, uint64_t of) const {
    switch (claim) {
      case Ownership::Claim::kGranted:
        return absl::OkStatus();
      case Ownership::Claim::kOwned:
        return Damaged(absl::StrCat("the host cluster at offset ", host_offset,
                                    " has two owners, one of them ",
                                    absl::string_view(what.data(), what.size()),
                                    " (offset ", of, ")"));
      case Ownership::Claim::kTooManyClusters:
        break;
    }
    return Error(Reason::kTargetUnsuitable,
                 file_.name() +
                     ": it has too many clusters to be checked in 128 MiB of "
                     "memory: convert it with `qemu-img convert -O qcow2 -o "
                     "cluster_size=2M` first");
  }

  absl::Status Damaged(const std::string& what) const {
    return Error(Reason::kIo, file_.name() + ": damaged: " + what);
  }

  const Header& header_;
  const HostFile& file_;
  const HostFile* const data_file_;
  const ClusterRules rules_;
  TableReader& tables_;
  const std::function<void()>& at_work_;
  Ownership ownership_;
  DuplicateFinder streams_;
  bool first_pass_ = true;
  uint64_t stream_count_ = 0;
  uint64_t stream_bytes_ = 0;
};

}  // namespace

absl::Status CheckMetadata(const Header& header, const HostFile& file,
                           const HostFile* data_file, TableReader& tables,
                           const std::function<void()>& at_work) {
  return Checker(header, file, data_file, tables, at_work).Check();
}

}  // namespace snapsync::qcow2
