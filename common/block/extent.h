// SPDX-License-Identifier: Apache-2.0
//
// A half-open range of bytes [offset, offset + length), and lists of them: the
// only form in which ranges travel between the layers.
#ifndef SNAPSYNC_COMMON_BLOCK_EXTENT_H_
#define SNAPSYNC_COMMON_BLOCK_EXTENT_H_

#include <cstdint>
#include <vector>

namespace snapsync {

struct Extent {
  uint64_t offset = 0;  // bytes
  uint64_t length = 0;  // bytes; offset + length never overflows

  uint64_t end() const { return offset + length; }
  friend bool operator==(const Extent&, const Extent&) = default;
};

// Ascending extents that neither overlap nor touch, none of them empty.
class ExtentList {
 public:
  // Requires: `extent` does not start before the end of the last one. Joins it
  // to the last one when they touch; ignores an empty one.
  void Append(Extent extent);

  const std::vector<Extent>& extents() const { return extents_; }
  bool empty() const { return extents_.empty(); }
  // The sum of all lengths.
  uint64_t bytes() const { return bytes_; }
  // The bytes of all blocks of `block` bytes that are touched.
  uint64_t BytesInBlocks(uint64_t block) const;

  // What of this list lies in [0, size).
  ExtentList ClippedTo(uint64_t size) const;
  // What of [0, size) is not in this list.
  ExtentList ComplementIn(uint64_t size) const;

  friend bool operator==(const ExtentList&, const ExtentList&) = default;

 private:
  std::vector<Extent> extents_;
  uint64_t bytes_ = 0;
};

// All bytes that are in `a` or in `b`.
ExtentList Union(const ExtentList& a, const ExtentList& b);

// All bytes that are in `a` and not in `b`.
ExtentList Difference(const ExtentList& a, const ExtentList& b);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BLOCK_EXTENT_H_
