// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/table_reader.h"

#include <algorithm>

#include "common/base/status_macros.h"
#include "common/base/units.h"

namespace snapsync::qcow2 {
namespace {

constexpr uint64_t kMaxSliceBytes = 64 * kKiB;
constexpr size_t kKeptSlices = 16;

}  // namespace

TableReader::TableReader(const HostFile& file, uint64_t cluster_size)
    : file_(file), slice_bytes_(std::min(cluster_size, kMaxSliceBytes)) {}

absl::StatusOr<const std::byte*> TableReader::Cursor::At(uint64_t offset,
                                                         size_t* available) {
  const uint64_t begin = offset - offset % reader_->slice_bytes_;
  if (slice_ == nullptr || slice_offset_ != begin) {
    SNAPSYNC_ASSIGN_OR_RETURN(slice_, reader_->Get(begin));
    slice_offset_ = begin;
  }
  *available = static_cast<size_t>(begin + slice_->size() - offset);
  return slice_->data() + (offset - begin);
}

absl::StatusOr<TableReader::Slice> TableReader::Get(uint64_t offset) {
  {
    MutexLock lock(&mutex_);
    const auto found =
        std::find_if(kept_.begin(), kept_.end(),
                     [&](const Kept& kept) { return kept.offset == offset; });
    if (found != kept_.end()) {
      Kept kept = std::move(*found);
      kept_.erase(found);
      kept_.push_front(kept);
      return kept.slice;
    }
  }
  auto bytes = std::make_shared<std::vector<std::byte>>(slice_bytes_);
  SNAPSYNC_RETURN_IF_ERROR(file_.Read(offset, *bytes));
  MutexLock lock(&mutex_);
  kept_.push_front({offset, bytes});
  if (kept_.size() > kKeptSlices) kept_.pop_back();
  return Slice(std::move(bytes));
}

}  // namespace snapsync::qcow2
