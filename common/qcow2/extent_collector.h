// SPDX-License-Identifier: Apache-2.0
//
// Extents in bounded memory: where there would be too many of them, those with
// the smallest gaps between them become one. Right for lists of what may hold
// data, since what holds none reads as zeroes all the same.
//
// Used by one thread at a time.
#ifndef SNAPSYNC_COMMON_QCOW2_EXTENT_COLLECTOR_H_
#define SNAPSYNC_COMMON_QCOW2_EXTENT_COLLECTOR_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "common/block/extent.h"

namespace snapsync::qcow2 {

class ExtentCollector {
 public:
  // 2 or more.
  static constexpr size_t kDefaultLimit = size_t{1} << 20U;

  explicit ExtentCollector(size_t limit = kDefaultLimit) : limit_(limit) {}

  // Requires: `extent` does not start before the end of the last one.
  void Append(Extent extent);
  ExtentList Finish() &&;

 private:
  void Join();

  const size_t limit_;
  uint64_t joined_gap_ = 0;  // gaps of up to so many bytes are left out
  std::vector<Extent> extents_;
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_EXTENT_COLLECTOR_H_
