// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/ownership.h"

#include <algorithm>

namespace snapsync::qcow2 {

SparseBits::Piece* SparseBits::Find(uint64_t index, bool make) {
  if (index == last_index_) return last_;
  auto place = pieces_.find(index);
  if (place == pieces_.end()) {
    if (!make) return nullptr;
    place = pieces_.emplace(index, std::make_unique<Piece>()).first;
  }
  last_index_ = index;
  last_ = place->second.get();
  return last_;
}

bool SparseBits::Insert(uint64_t number) {
  Piece& piece = *Find(number / (sizeof(Piece) * 8), true);
  uint64_t& word = piece[number / 64 % piece.size()];
  const uint64_t bit = uint64_t{1} << (number % 64);
  if ((word & bit) != 0) return false;
  word |= bit;
  return true;
}

bool SparseBits::Contains(uint64_t number) {
  const Piece* piece = Find(number / (sizeof(Piece) * 8), false);
  return piece != nullptr &&
         ((*piece)[number / 64 % piece->size()] >> (number % 64) & 1U) != 0;
}

Ownership::Claim Ownership::ClaimAlone(Extent bytes) {
  if (bytes.length == 0) return Claim::kGranted;
  const uint64_t last = (bytes.end() - 1) >> cluster_bits_;
  for (uint64_t cluster = bytes.offset >> cluster_bits_; cluster <= last;
       ++cluster) {
    if (shared_.Contains(cluster) || !alone_.Insert(cluster)) {
      return Claim::kOwned;
    }
    if (AtLimit()) return Claim::kTooManyClusters;
  }
  return Claim::kGranted;
}

Ownership::Claim Ownership::ClaimShared(Extent bytes) {
  if (bytes.length == 0) return Claim::kGranted;
  const uint64_t last = (bytes.end() - 1) >> cluster_bits_;
  for (uint64_t cluster = bytes.offset >> cluster_bits_; cluster <= last;
       ++cluster) {
    if (alone_.Contains(cluster)) return Claim::kOwned;
    shared_.Insert(cluster);
    if (AtLimit()) return Claim::kTooManyClusters;
  }
  return Claim::kGranted;
}

void DuplicateFinder::Sort() {
  std::sort(numbers_.begin(), numbers_.end());
  if (std::adjacent_find(numbers_.begin(), numbers_.end()) != numbers_.end()) {
    found_ = true;
  }
}

void DuplicateFinder::DropUpperHalf() {
  Sort();
  if (found_) {
    numbers_.clear();
    return;
  }
  numbers_.resize(limit_ / 2);
  high_ = numbers_.back();
}

bool DuplicateFinder::NeedsAnotherPass() {
  Sort();
  numbers_.clear();
  if (found_ || high_ == std::numeric_limits<uint64_t>::max()) return false;
  low_ = high_ + 1;
  high_ = std::numeric_limits<uint64_t>::max();
  return true;
}

}  // namespace snapsync::qcow2
