// SPDX-License-Identifier: Apache-2.0
#include "common/transfer/plan.h"

#include <algorithm>
#include <utility>

namespace snapsync {

Plan::Plan(uint64_t source_size, ExtentList changed, ExtentList gone)
    : source_size_(source_size),
      changed_(std::move(changed)),
      gone_(std::move(gone)) {
  Sha256 hash;
  hash.Update("snapsync plan 1").Update(source_size_);
  for (const ExtentList* list : {&changed_, &gone_}) {
    hash.Update(list->extents().size());
    for (const Extent& extent : list->extents()) {
      hash.Update(extent.offset).Update(extent.length);
    }
  }
  digest_ = hash.Finish();
  Cursor cursor(*this);
  while (!cursor.Next().empty()) ++chunk_count_;
}

std::vector<Piece> Plan::Cursor::Next() {
  const std::vector<Extent>& changed = plan_->changed_.extents();
  const std::vector<Extent>& gone = plan_->gone_.extents();
  std::vector<Piece> pieces;
  uint64_t data_left = kChunkDataBytes;
  uint64_t gone_left = kChunkGoneBytes;
  while (pieces.size() < kChunkPieces && data_left > 0 && gone_left > 0) {
    const bool have_changed = changed_index_ < changed.size();
    const bool have_gone = gone_index_ < gone.size();
    if (!have_changed && !have_gone) break;
    const bool take_changed =
        have_changed && (!have_gone || changed[changed_index_].offset <
                                           gone[gone_index_].offset);
    const Extent extent =
        take_changed ? changed[changed_index_] : gone[gone_index_];
    size_t& index = take_changed ? changed_index_ : gone_index_;
    uint64_t& done = take_changed ? changed_done_ : gone_done_;
    uint64_t& left = take_changed ? data_left : gone_left;
    const uint64_t length = std::min(extent.length - done, left);
    pieces.push_back({extent.offset + done, length,
                      take_changed ? PieceKind::kData : PieceKind::kGone});
    left -= length;
    done += length;
    if (done == extent.length) {
      ++index;
      done = 0;
    }
  }
  return pieces;
}

Plan::Cursor Plan::At(uint64_t index) const {
  Cursor cursor(*this);
  for (uint64_t i = 0; i < index; ++i) cursor.Next();
  return cursor;
}

}  // namespace snapsync
