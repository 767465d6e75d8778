// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/layer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "common/qcow2/format.h"

namespace snapsync::qcow2 {
namespace {

// Entries without L2 table that are looked at for one run: a bound on what a
// call costs when a layer below is asked for each piece of a long run.
constexpr uint64_t kEmptyEntriesAtATime = 1024;
// And clusters that are joined to one.
constexpr int kClustersAtATime = 8192;

// Whether `next` goes on where `run` ends.
bool Joins(const Run& run, const Run& next) {
  if (run.kind != next.kind || run.kind == Run::Kind::kCompressed) return false;
  return run.kind != Run::Kind::kData ||
         run.host_offset + run.length == next.host_offset;
}

}  // namespace

Layer::Layer(const Header& header, NumberedFile file, NumberedFile data_file,
             std::unique_ptr<TableReader> tables)
    : file_(std::move(file)),
      data_file_(std::move(data_file)),
      size_(header.disk_size()),
      qcow2_([&] {
        auto qcow2 = std::make_unique<Qcow2>();
        qcow2->header = header;
        qcow2->tables = std::move(tables);
        qcow2->rules = std::make_unique<ClusterRules>(
            qcow2->header, *file_.file, data_file_.file.get());
        return qcow2;
      }()) {}

Layer::Layer(NumberedFile file)
    : file_(std::move(file)),
      size_((file_.file->size() + kSectorBytes - 1) & ~(kSectorBytes - 1)) {}

absl::StatusOr<Run> Layer::FindRun(uint64_t offset, uint64_t end) const {
  if (qcow2_ == nullptr) {
    Run run;
    run.kind = Run::Kind::kData;
    run.length = end - offset;
    run.file = file_.number;
    run.host_offset = offset;
    return run;
  }
  TableReader::Cursor l1(*qcow2_->tables);
  TableReader::Cursor l2(*qcow2_->tables);
  SNAPSYNC_ASSIGN_OR_RETURN(Run run, FindOne(offset, end, l1, l2));
  for (int more = 0; more < kClustersAtATime; ++more) {
    const uint64_t at = offset + run.length;
    if (at == end || run.kind == Run::Kind::kCompressed) break;
    SNAPSYNC_ASSIGN_OR_RETURN(const Run next, FindOne(at, end, l1, l2));
    if (!Joins(run, next)) break;
    run.length += next.length;
  }
  return run;
}

absl::StatusOr<Run> Layer::FindOne(uint64_t offset, uint64_t end,
                                   TableReader::Cursor& l1,
                                   TableReader::Cursor& l2) const {
  const Header& header = qcow2_->header;
  const uint64_t index = offset / header.l1_entry_reach();
  const uint64_t l1_at = header.l1_offset + index * kL1EntryBytes;
  size_t available = 0;
  SNAPSYNC_ASSIGN_OR_RETURN(const std::byte* l1_entry,
                            l1.At(l1_at, &available));
  SNAPSYNC_ASSIGN_OR_RETURN(
      const uint64_t table,
      qcow2_->rules->ParseL1Entry(LoadBig<uint64_t>(l1_entry), l1_at, index));
  if (table == 0) return FindRangeWithoutTable(offset, end, l1);

  const uint64_t cluster_index =
      (offset >> header.cluster_bits) % header.l2_entries();
  const uint64_t l2_at = table + cluster_index * header.l2_entry_bytes();
  SNAPSYNC_ASSIGN_OR_RETURN(const std::byte* l2_entry,
                            l2.At(l2_at, &available));
  const uint64_t cluster_offset = offset & ~(header.cluster_size() - 1);
  SNAPSYNC_ASSIGN_OR_RETURN(
      const Cluster cluster,
      qcow2_->rules->ParseL2Entry(l2_entry, l2_at, cluster_offset));
  return RunIn(cluster, offset,
               std::min(end, cluster_offset + header.cluster_size()));
}

absl::StatusOr<Run> Layer::FindRangeWithoutTable(
    uint64_t offset, uint64_t end, TableReader::Cursor& l1) const {
  const uint64_t reach = qcow2_->header.l1_entry_reach();
  const uint64_t first = offset / reach;
  uint64_t index = first + 1;
  for (; index * reach < end && index - first < kEmptyEntriesAtATime; ++index) {
    size_t available = 0;
    SNAPSYNC_ASSIGN_OR_RETURN(
        const std::byte* entry,
        l1.At(qcow2_->header.l1_offset + index * kL1EntryBytes, &available));
    if (LoadBig<uint64_t>(entry) != 0) break;
  }
  Run run;
  run.length = std::min(end, index * reach) - offset;
  return run;
}

Run Layer::RunIn(const Cluster& cluster, uint64_t offset, uint64_t end) const {
  const Header& header = qcow2_->header;
  const uint64_t in_cluster = offset & (header.cluster_size() - 1);
  Run run;
  run.length = end - offset;
  if (cluster.compressed) {
    run.kind = Run::Kind::kCompressed;
    run.file = file_.number;
    run.host_offset = cluster.host_offset;
    run.stream_bytes = cluster.stream_bytes;
    run.skip = in_cluster;
    return run;
  }
  const uint64_t subcluster_size = header.extended_l2()
                                       ? header.cluster_size() / kSubclusters
                                       : header.cluster_size();
  const auto kind_of = [&](uint64_t subcluster) {
    if ((cluster.data >> subcluster & 1U) != 0) return Run::Kind::kData;
    if ((cluster.zeroes >> subcluster & 1U) != 0) return Run::Kind::kZero;
    return Run::Kind::kUnallocated;
  };
  uint64_t subcluster = in_cluster / subcluster_size;
  const uint64_t cluster_offset = offset - in_cluster;
  run.kind = kind_of(subcluster);
  do {
    ++subcluster;
  } while (cluster_offset + subcluster * subcluster_size < end &&
           kind_of(subcluster) == run.kind);
  run.length =
      std::min(end, cluster_offset + subcluster * subcluster_size) - offset;
  if (run.kind == Run::Kind::kData) {
    run.file = data_file_.file != nullptr ? data_file_.number : file_.number;
    run.host_offset = cluster.host_offset + in_cluster;
  }
  return run;
}

absl::Status Layer::Decode(const Run& run, DecoderScratch& scratch,
                           std::span<std::byte> out) const {
  const Header& header = qcow2_->header;
  const size_t cluster_size = header.cluster_size();
  const bool remembered =
      scratch.layer == this && scratch.host_offset == run.host_offset;
  if (!remembered) {
    // A stream is two clusters long at most (cluster.h).
    if (scratch.stream.size() < run.stream_bytes) {
      scratch.stream = AlignedBuffer(2 * cluster_size);
    }
    const uint64_t there =
        std::min(run.stream_bytes, file_.file->size() - run.host_offset);
    const auto stream = scratch.stream.span().first(there);
    SNAPSYNC_RETURN_IF_ERROR(file_.file->Read(run.host_offset, stream));
    const bool whole = out.size() == cluster_size;
    if (!whole) {
      scratch.layer = nullptr;
      if (scratch.cluster.size() < cluster_size) {
        scratch.cluster = AlignedBuffer(cluster_size);
      }
    }
    const auto cluster =
        whole ? out : scratch.cluster.span().first(cluster_size);
    const absl::Status status =
        scratch.decoder.Decode(header.compression_type, stream, cluster);
    if (!status.ok()) {
      return Annotate(
          status, absl::StrCat(file_.file->name(),
                               ": damaged: the compressed cluster at offset ",
                               run.host_offset));
    }
    if (whole) return absl::OkStatus();
    scratch.layer = this;
    scratch.host_offset = run.host_offset;
  }
  std::memcpy(out.data(), scratch.cluster.data() + run.skip, out.size());
  return absl::OkStatus();
}

}  // namespace snapsync::qcow2
