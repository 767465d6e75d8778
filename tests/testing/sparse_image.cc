// SPDX-License-Identifier: Apache-2.0
#include "tests/testing/sparse_image.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <string_view>

#include "common/base/error.h"
#include "common/base/units.h"
#include "common/block/zeroes.h"

namespace snapsync {

uint64_t SectorPool::NumberOf(std::span<const std::byte> sector) {
  if (IsZero(sector)) return 0;
  const uint64_t number = std::hash<std::string_view>()(
      {reinterpret_cast<const char*>(sector.data()), sector.size()});
  Sector& bytes = sectors_[number];
  std::memcpy(bytes.data(), sector.data(), bytes.size());
  return number;
}

void SparseImage::Set(uint64_t sector, uint64_t number) {
  if (number == 0) {
    sectors_.erase(sector);
  } else {
    sectors_[sector] = number;
  }
}

uint64_t SparseImage::At(uint64_t sector) const {
  const auto found = sectors_.find(sector);
  return found == sectors_.end() ? 0 : found->second;
}

void SparseImage::Zero(Extent extent) {
  sectors_.erase(sectors_.lower_bound(extent.offset / kSectorBytes),
                 sectors_.lower_bound(extent.end() / kSectorBytes));
}

void SparseImage::Read(const SectorPool& pool, uint64_t offset,
                       std::span<std::byte> out) const {
  if (out.empty()) return;
  std::memset(out.data(), 0, out.size());
  const uint64_t first = offset / kSectorBytes;
  const uint64_t end = first + out.size() / kSectorBytes;
  for (auto it = sectors_.lower_bound(first);
       it != sectors_.end() && it->first < end; ++it) {
    std::memcpy(out.data() + (it->first - first) * kSectorBytes,
                pool.BytesOf(it->second).data(), kSectorBytes);
  }
}

std::optional<uint64_t> SparseImage::FirstDifference(const SparseImage& other,
                                                     Extent extent) const {
  const uint64_t first = extent.offset / kSectorBytes;
  const uint64_t end = extent.end() / kSectorBytes;
  const auto [mine, theirs] = std::mismatch(
      sectors_.lower_bound(first), sectors_.lower_bound(end),
      other.sectors_.lower_bound(first), other.sectors_.lower_bound(end));
  const bool mine_ends = mine == sectors_.lower_bound(end);
  const bool theirs_end = theirs == other.sectors_.lower_bound(end);
  if (mine_ends && theirs_end) return std::nullopt;
  if (mine_ends) return theirs->first;
  if (theirs_end) return mine->first;
  return std::min(mine->first, theirs->first);
}

absl::Status SparseImageReader::Read(
    std::span<const ReadOperation> operations) {
  for (const ReadOperation& operation : operations) {
    if (operation.offset > size_ ||
        operation.data.size() > size_ - operation.offset) {
      return Error(Reason::kIo, name_ + ": read beyond the end");
    }
    image_->Read(*pool_, operation.offset, operation.data);
  }
  return absl::OkStatus();
}

}  // namespace snapsync
