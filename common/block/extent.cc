// SPDX-License-Identifier: Apache-2.0
#include "common/block/extent.h"

#include <algorithm>
#include <cassert>

namespace snapsync {

void ExtentList::Append(Extent extent) {
  if (extent.length == 0) return;
  assert(extents_.empty() || extent.offset >= extents_.back().end());
  bytes_ += extent.length;
  if (!extents_.empty() && extents_.back().end() == extent.offset) {
    extents_.back().length += extent.length;
  } else {
    extents_.push_back(extent);
  }
}

uint64_t ExtentList::BytesInBlocks(uint64_t block) const {
  uint64_t blocks = 0;
  uint64_t counted = 0;  // blocks before this one are
  for (const Extent& extent : extents_) {
    const uint64_t first = std::max(extent.offset / block, counted);
    counted = (extent.end() - 1) / block + 1;
    blocks += counted - std::min(first, counted);
  }
  return blocks * block;
}

ExtentList ExtentList::ClippedTo(uint64_t size) const {
  ExtentList clipped;
  for (const Extent& extent : extents_) {
    if (extent.offset >= size) break;
    clipped.Append(
        {extent.offset, std::min(extent.length, size - extent.offset)});
  }
  return clipped;
}

ExtentList ExtentList::ComplementIn(uint64_t size) const {
  ExtentList complement;
  uint64_t at = 0;
  for (const Extent& extent : extents_) {
    if (extent.offset >= size) break;
    complement.Append({at, extent.offset - at});
    at = extent.end();
  }
  if (at < size) complement.Append({at, size - at});
  return complement;
}

ExtentList Union(const ExtentList& a, const ExtentList& b) {
  ExtentList joined;
  uint64_t covered = 0;
  auto left = a.extents().begin();
  auto right = b.extents().begin();
  const auto add = [&](const Extent& extent) {
    const uint64_t start = std::max(extent.offset, covered);
    if (start < extent.end()) {
      joined.Append({start, extent.end() - start});
      covered = extent.end();
    }
  };
  while (left != a.extents().end() || right != b.extents().end()) {
    const bool take_left =
        right == b.extents().end() ||
        (left != a.extents().end() && left->offset <= right->offset);
    add(take_left ? *left++ : *right++);
  }
  return joined;
}

ExtentList Difference(const ExtentList& a, const ExtentList& b) {
  ExtentList rest;
  auto hole = b.extents().begin();
  for (const Extent& extent : a.extents()) {
    uint64_t at = extent.offset;
    while (hole != b.extents().end() && hole->end() <= at) ++hole;
    for (auto cut = hole;
         cut != b.extents().end() && cut->offset < extent.end(); ++cut) {
      if (cut->offset > at) rest.Append({at, cut->offset - at});
      at = std::max(at, std::min(cut->end(), extent.end()));
    }
    if (at < extent.end()) rest.Append({at, extent.end() - at});
  }
  return rest;
}

}  // namespace snapsync
