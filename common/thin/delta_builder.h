// SPDX-License-Identifier: Apache-2.0
//
// Makes a delta out of a comparison, block by block, whatever is compared:
// clips to the snapshot's size, and sees to what is beyond the base's
// (DeltaSizes has the rule). Used by one thread at a time.
#ifndef SNAPSYNC_COMMON_THIN_DELTA_BUILDER_H_
#define SNAPSYNC_COMMON_THIN_DELTA_BUILDER_H_

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

#include "common/thin/btree.h"
#include "common/thin/delta.h"

namespace snapsync {

class DeltaBuilder {
 public:
  DeltaBuilder(uint32_t block_size, const DeltaSizes& sizes)
      : block_size_(block_size), size_(sizes.snapshot.value_or(UINT64_MAX)) {
    delta_.block_size_bytes = block_size;
    if (sizes.base && sizes.snapshot && *sizes.base < *sizes.snapshot) {
      grown_from_ = *sizes.base / block_size;
      covered_ = *grown_from_ * block_size;
    }
  }

  // The first virtual block of which the size alone says that it may differ.
  uint64_t grown_from() const { return grown_from_.value_or(kKeyEnd); }

  // True when the block's offset in bytes does not overflow.
  bool Addressable(uint64_t virtual_block) const {
    return virtual_block < UINT64_MAX / block_size_;
  }

  // A block that the snapshot maps; `same`: as the base does. Requires:
  // addressable, ascending over all calls.
  void AddMapped(uint64_t virtual_block, bool same) {
    const uint64_t offset = virtual_block * block_size_;
    if (virtual_block >= grown_from()) {
      AddTo(delta_.gone, covered_, offset);
      AddTo(delta_.changed, offset, offset + block_size_);
      covered_ = offset + block_size_;
    } else if (!same) {
      AddTo(delta_.changed, offset, offset + block_size_);
    }
  }

  // `count` blocks that only the base maps. Requires: ascending.
  void AddGone(uint64_t virtual_block, uint64_t count) {
    const uint64_t end = std::min(
        {virtual_block + count, grown_from(), UINT64_MAX / block_size_});
    if (virtual_block >= end) return;
    AddTo(delta_.gone, virtual_block * block_size_, end * block_size_);
  }

  Delta Finish() {
    if (grown_from_) AddTo(delta_.gone, covered_, size_);
    return std::move(delta_);
  }

 private:
  void AddTo(ExtentList& list, uint64_t from, uint64_t to) const {
    to = std::min(to, size_);
    if (from < to) list.Append({from, to - from});
  }

  const uint64_t block_size_;
  const uint64_t size_;
  std::optional<uint64_t> grown_from_;  // virtual block
  uint64_t covered_ = 0;  // bytes up to which the grown part is in the lists
  Delta delta_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_THIN_DELTA_BUILDER_H_
