// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/extent_collector.h"

#include <algorithm>

namespace snapsync::qcow2 {
namespace {

constexpr uint64_t kSmallestJoinedGap = 4096;

}  // namespace

void ExtentCollector::Append(Extent extent) {
  if (extent.length == 0) return;
  if (!extents_.empty() &&
      extent.offset - extents_.back().end() <= joined_gap_) {
    extents_.back().length = extent.end() - extents_.back().offset;
    return;
  }
  extents_.push_back(extent);
  while (extents_.size() > limit_) Join();
}

void ExtentCollector::Join() {
  joined_gap_ = std::max(kSmallestJoinedGap, 2 * joined_gap_);
  size_t kept = 0;
  for (size_t next = 1; next < extents_.size(); ++next) {
    Extent& last = extents_[kept];
    if (extents_[next].offset - last.end() <= joined_gap_) {
      last.length = extents_[next].end() - last.offset;
    } else {
      extents_[++kept] = extents_[next];
    }
  }
  extents_.resize(kept + 1);
}

ExtentList ExtentCollector::Finish() && {
  ExtentList list;
  for (const Extent& extent : extents_) list.Append(extent);
  return list;
}

}  // namespace snapsync::qcow2
