// SPDX-License-Identifier: Apache-2.0
//
// Who uses which host cluster: each has one owner at most, but that compressed
// streams share theirs with each other. A second owner is damage, whatever its
// cause: it would make a write to one part of the disk change another, and it
// is how a small file claims to be an endless disk.
//
// Memory is bounded: a bit per cluster, in pieces that are made when they are
// touched. Used by one thread at a time.
#ifndef SNAPSYNC_COMMON_QCOW2_OWNERSHIP_H_
#define SNAPSYNC_COMMON_QCOW2_OWNERSHIP_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <unordered_map>
#include <vector>

#include "common/block/extent.h"

namespace snapsync::qcow2 {

// A set of numbers that takes a bit each where they are dense.
class SparseBits {
 public:
  // false: it was in the set.
  bool Insert(uint64_t number);
  bool Contains(uint64_t number);
  size_t memory_bytes() const { return pieces_.size() * sizeof(Piece); }

 private:
  using Piece = std::array<uint64_t, 512>;
  static constexpr uint64_t kNone = std::numeric_limits<uint64_t>::max();

  // The last one is remembered: numbers come in runs. Null: there is none.
  Piece* Find(uint64_t index, bool make);

  std::unordered_map<uint64_t, std::unique_ptr<Piece>> pieces_;
  uint64_t last_index_ = kNone;
  Piece* last_ = nullptr;
};

class Ownership {
 public:
  enum class Claim { kGranted, kOwned, kTooManyClusters };

  // `memory_limit` in bytes.
  Ownership(unsigned cluster_bits, size_t memory_limit)
      : cluster_bits_(cluster_bits), memory_limit_(memory_limit) {}

  // All clusters that `bytes` touch, for one owner.
  Claim ClaimAlone(Extent bytes);
  // The same, to be shared with other claims of this kind.
  Claim ClaimShared(Extent bytes);

 private:
  bool AtLimit() const {
    return alone_.memory_bytes() + shared_.memory_bytes() > memory_limit_;
  }

  const unsigned cluster_bits_;
  const size_t memory_limit_;
  SparseBits alone_;
  SparseBits shared_;
};

// Finds a number that was added twice, in bounded memory: with more numbers
// than fit, the same ones have to be added again, pass after pass.
//
//   do { for (...) finder.Add(n); } while (finder.NeedsAnotherPass());
class DuplicateFinder {
 public:
  // `limit`: how many numbers are kept at a time, 2 or more.
  explicit DuplicateFinder(size_t limit) : limit_(limit) {}

  void Add(uint64_t number) {
    if (number < low_ || number > high_) return;
    numbers_.push_back(number);
    if (numbers_.size() == limit_) DropUpperHalf();
  }
  // Ends a pass.
  bool NeedsAnotherPass();
  bool found() const { return found_; }

 private:
  void Sort();
  void DropUpperHalf();

  const size_t limit_;
  // Of this pass, both included.
  uint64_t low_ = 0;
  uint64_t high_ = std::numeric_limits<uint64_t>::max();
  std::vector<uint64_t> numbers_;
  bool found_ = false;
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_OWNERSHIP_H_
