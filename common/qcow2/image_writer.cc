// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/image_writer.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "common/base/aligned_buffer.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "common/block/zeroes.h"

namespace snapsync::qcow2 {
namespace {

// Joined to the last one where it goes on, in the file and in memory.
void AppendRead(std::vector<ReadOperation>& reads, const ReadOperation& read) {
  if (!reads.empty()) {
    ReadOperation& last = reads.back();
    if (last.offset + last.data.size() == read.offset &&
        last.data.data() + last.data.size() == read.data.data()) {
      last.data = {last.data.data(), last.data.size() + read.data.size()};
      return;
    }
  }
  reads.push_back(read);
}

}  // namespace

ImageWriter::ImageWriter(const StoreOptions& options, uint64_t size, Base base,
                         std::unique_ptr<GrowingFile> file,
                         std::unique_ptr<StageJournal> journal)
    : name_(file->name()),
      size_(size),
      geometry_(options.geometry),
      partial_(options.geometry, size),
      file_(std::move(file)),
      journal_(std::move(journal)),
      store_(std::make_unique<ClusterStore>(
          options, file_.get(), std::move(base.l1),
          HostSpace(std::move(base.free), base.end))) {}

absl::StatusOr<std::unique_ptr<ImageWriter>> ImageWriter::Open(
    const StoreOptions& options, uint64_t size, Base base,
    std::unique_ptr<GrowingFile> file, std::unique_ptr<StageJournal> journal) {
  const bool shrinks = base.size > size;
  std::unique_ptr<ImageWriter> writer(new ImageWriter(
      options, size, std::move(base), std::move(file), std::move(journal)));
  if (writer->journal_ != nullptr) {
    SNAPSYNC_RETURN_IF_ERROR(writer->store_->Replay(*writer->journal_));
  }
  if (shrinks) {
    MutexLock lock(&writer->mutex_);
    SNAPSYNC_RETURN_IF_ERROR(writer->CutOff());
  }
  return writer;
}

ImageWriter::Base ImageWriter::NewFile(const Geometry& geometry,
                                       uint64_t size) {
  Base base;
  base.size = size;
  base.l1.resize(geometry.L1EntriesOf(size));
  return base;
}

absl::Status ImageWriter::CutOff() {
  const uint64_t clusters = geometry_.ClustersOf(size_);
  SNAPSYNC_RETURN_IF_ERROR(
      store_->Clear(clusters, store_->map().cluster_count() - clusters));
  const uint64_t inside = size_ % geometry_.cluster_bytes();
  if (inside == 0) return absl::OkStatus();
  return ZeroPart(size_ >> geometry_.cluster_bits, inside,
                  geometry_.cluster_bytes() - inside);
}

absl::Status ImageWriter::CheckRange(uint64_t offset, uint64_t length) const {
  if (offset % kSectorBytes == 0 && length % kSectorBytes == 0 &&
      offset <= size_ && length <= size_ - offset) {
    return absl::OkStatus();
  }
  return Error(Reason::kIo, name_ + ": " + std::to_string(length) +
                                " bytes at offset " + std::to_string(offset) +
                                " are no sectors of a disk of " +
                                std::to_string(size_));
}

absl::Status ImageWriter::Fail(const absl::Status& status) {
  if (status_.ok()) status_ = status;
  return status;
}

absl::Status ImageWriter::Write(std::span<const WriteOperation> operations) {
  MutexLock lock(&mutex_);
  SNAPSYNC_RETURN_IF_ERROR(status_);
  for (const WriteOperation& operation : operations) {
    if (absl::Status s = WriteOne(operation); !s.ok()) return Fail(s);
  }
  return absl::OkStatus();
}

absl::Status ImageWriter::WriteOne(const WriteOperation& operation) {
  SNAPSYNC_RETURN_IF_ERROR(CheckRange(operation.offset, operation.data.size()));
  uint64_t offset = operation.offset;
  std::span<const std::byte> data = operation.data;
  while (!data.empty()) {
    const uint64_t cluster = offset >> geometry_.cluster_bits;
    const uint64_t inside = offset & (geometry_.cluster_bytes() - 1);
    const uint64_t length =
        std::min<uint64_t>(geometry_.cluster_bytes() - inside, data.size());
    if (length == geometry_.cluster_bytes()) {
      partial_.Close(cluster);
      SNAPSYNC_RETURN_IF_ERROR(store_->Put(cluster, data.first(length)));
    } else {
      PartialCluster& partial = partial_.Open(cluster);
      partial.Cover(inside, data.first(length));
      if (partial.whole()) SNAPSYNC_RETURN_IF_ERROR(ClosePartial(cluster));
      while (partial_.crowded()) {
        SNAPSYNC_RETURN_IF_ERROR(ClosePartial(partial_.lowest()));
      }
    }
    offset += length;
    data = data.subspan(length);
  }
  return absl::OkStatus();
}

absl::Status ImageWriter::ClosePartial(uint64_t cluster) {
  PartialCluster& partial = *partial_.Find(cluster);
  if (!partial.whole()) {
    AlignedBuffer old(geometry_.cluster_bytes());
    SNAPSYNC_RETURN_IF_ERROR(store_->Read(cluster, old.span()));
    partial.FillFrom(old.span());
  }
  SNAPSYNC_RETURN_IF_ERROR(store_->Put(cluster, partial.data()));
  partial_.Close(cluster);
  return absl::OkStatus();
}

absl::Status ImageWriter::Zero(Extent extent) {
  MutexLock lock(&mutex_);
  SNAPSYNC_RETURN_IF_ERROR(status_);
  if (absl::Status s = ZeroExtent(extent); !s.ok()) return Fail(s);
  return absl::OkStatus();
}

absl::Status ImageWriter::ZeroExtent(Extent extent) {
  SNAPSYNC_RETURN_IF_ERROR(CheckRange(extent.offset, extent.length));
  const uint64_t cluster_bytes = geometry_.cluster_bytes();
  uint64_t at = extent.offset;
  if (at % cluster_bytes != 0 && extent.length != 0) {
    const uint64_t length =
        std::min(cluster_bytes - at % cluster_bytes, extent.length);
    SNAPSYNC_RETURN_IF_ERROR(
        ZeroPart(at >> geometry_.cluster_bits, at % cluster_bytes, length));
    at += length;
  }
  if (at >= extent.end()) return absl::OkStatus();
  // The last cluster of the disk is whole where the disk ends.
  const uint64_t first = at >> geometry_.cluster_bits;
  const uint64_t last = extent.end() == size_
                            ? geometry_.ClustersOf(size_)
                            : extent.end() >> geometry_.cluster_bits;
  if (first < last) {
    partial_.CloseRange(first, last - first);
    SNAPSYNC_RETURN_IF_ERROR(store_->Clear(first, last - first));
    at = last << geometry_.cluster_bits;
  }
  if (at >= extent.end()) return absl::OkStatus();
  return ZeroPart(at >> geometry_.cluster_bits, 0, extent.end() - at);
}

absl::Status ImageWriter::ZeroPart(uint64_t cluster, uint64_t offset,
                                   uint64_t length) {
  if (PartialCluster* partial = partial_.Find(cluster)) {
    partial->CoverWithZeroes(offset, length);
    return partial->whole() ? ClosePartial(cluster) : absl::OkStatus();
  }
  SNAPSYNC_ASSIGN_OR_RETURN(const bool may_hold_data,
                            store_->MayHoldData(cluster));
  if (!may_hold_data) return absl::OkStatus();
  AlignedBuffer data(geometry_.cluster_bytes());
  SNAPSYNC_RETURN_IF_ERROR(store_->Read(cluster, data.span()));
  const std::span<std::byte> part = data.span().subspan(offset, length);
  if (IsZero(part)) return absl::OkStatus();
  std::fill(part.begin(), part.end(), std::byte{0});
  return store_->Put(cluster, data.span());
}

absl::Status ImageWriter::Flush() {
  MutexLock flush_lock(&flushing_);
  absl::Status status = FlushLocked();
  if (status.ok()) return status;
  MutexLock lock(&mutex_);
  return Fail(status);
}

absl::Status ImageWriter::FlushLocked() {
  uint64_t number = 0;
  std::vector<MapRecord> records;
  ClusterSet released;
  {
    MutexLock lock(&mutex_);
    SNAPSYNC_RETURN_IF_ERROR(status_);
    while (!partial_.empty()) {
      SNAPSYNC_RETURN_IF_ERROR(ClosePartial(partial_.lowest()));
    }
    SNAPSYNC_ASSIGN_OR_RETURN(number, store_->Submit());
    records = store_->TakeRecords();
    released = store_->space().TakeReleased();
  }
  // Writes go on meanwhile; what they change is for the next flush. The order
  // is the promise: data, then the journal that speaks of them, then the use of
  // what it no longer speaks of.
  SNAPSYNC_RETURN_IF_ERROR(store_->queue().Wait(number));
  SNAPSYNC_RETURN_IF_ERROR(file_->Flush());
  if (journal_ != nullptr && !records.empty()) {
    SNAPSYNC_RETURN_IF_ERROR(journal_->Append(records));
  }
  MutexLock lock(&mutex_);
  store_->space().Reuse(released);
  return absl::OkStatus();
}

absl::Status ImageWriter::ReadBack(std::span<const ReadOperation> operations) {
  // No flush: host clusters stay what they are. Writes go on.
  MutexLock flush_lock(&flushing_);
  std::vector<ReadOperation> plain;
  {
    MutexLock lock(&mutex_);
    SNAPSYNC_RETURN_IF_ERROR(status_);
    for (const ReadOperation& operation : operations) {
      if (absl::Status s = ReadOne(operation, plain); !s.ok()) return Fail(s);
    }
  }
  const absl::Status status = file_->Read(plain);
  if (status.ok()) return status;
  MutexLock lock(&mutex_);
  return Fail(status);
}

absl::Status ImageWriter::ReadOne(const ReadOperation& operation,
                                  std::vector<ReadOperation>& plain) {
  SNAPSYNC_RETURN_IF_ERROR(CheckRange(operation.offset, operation.data.size()));
  const uint64_t cluster_bytes = geometry_.cluster_bytes();
  AlignedBuffer whole;
  uint64_t offset = operation.offset;
  std::span<std::byte> data = operation.data;
  while (!data.empty()) {
    const uint64_t cluster = offset >> geometry_.cluster_bits;
    const uint64_t inside = offset & (cluster_bytes - 1);
    const uint64_t length =
        std::min<uint64_t>(cluster_bytes - inside, data.size());
    std::optional<uint64_t> host;
    if (length == cluster_bytes && AlignedBuffer::IsAligned(data)) {
      SNAPSYNC_ASSIGN_OR_RETURN(host, store_->HostOffset(cluster));
    }
    if (host) {
      AppendRead(plain, {*host, data.first(length)});
    } else {
      if (whole.size() == 0) whole = AlignedBuffer(cluster_bytes);
      SNAPSYNC_RETURN_IF_ERROR(store_->Read(cluster, whole.span()));
      std::memcpy(data.data(), whole.data() + inside, length);
    }
    offset += length;
    data = data.subspan(length);
  }
  return absl::OkStatus();
}

absl::Status ImageWriter::Finish(
    const std::function<absl::Status(ClusterStore& store)>& commit) {
  SNAPSYNC_RETURN_IF_ERROR(Flush());
  MutexLock flush_lock(&flushing_);
  MutexLock lock(&mutex_);
  SNAPSYNC_RETURN_IF_ERROR(status_);
  const absl::Status status = commit(*store_);
  Fail(status.ok() ? Error(Reason::kOther, name_ + " is committed") : status)
      .IgnoreError();
  return status;
}

void ImageWriter::Retire() {
  MutexLock flush_lock(&flushing_);
  MutexLock lock(&mutex_);
  Fail(Error(Reason::kConnection, name_ + " was opened again")).IgnoreError();
  store_.reset();
  journal_.reset();
  file_.reset();
}

}  // namespace snapsync::qcow2
