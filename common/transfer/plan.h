// SPDX-License-Identifier: Apache-2.0
//
// A plan: what one session has to send, as an ordered list of chunks that comes
// out the same each time it is computed from the same delta. So a chunk's
// number names the same bytes before and after a crash of either side.
//
// Thread-safe after construction.
#ifndef SNAPSYNC_COMMON_TRANSFER_PLAN_H_
#define SNAPSYNC_COMMON_TRANSFER_PLAN_H_

#include <cstdint>
#include <vector>

#include "common/base/digest.h"
#include "common/block/extent.h"
#include "common/transfer/chunk.h"

namespace snapsync {

class Plan {
 public:
  // Of a source of `source_size` bytes. Requires: the lists are disjoint, lie
  // within the size, and are made of whole sectors.
  Plan(uint64_t source_size, ExtentList changed, ExtentList gone);

  uint64_t source_size() const { return source_size_; }
  const ExtentList& changed() const { return changed_; }
  const ExtentList& gone() const { return gone_; }
  uint64_t changed_bytes() const { return changed_.bytes(); }
  uint64_t gone_bytes() const { return gone_.bytes(); }
  uint64_t chunk_count() const { return chunk_count_; }
  bool empty() const { return chunk_count_ == 0; }
  // Over all extents: equal plans, and no others, have equal digests.
  const Digest256& digest() const { return digest_; }

  // Walks over the chunks in order. The plan must outlive it. Used by one
  // thread at a time.
  class Cursor {
   public:
    explicit Cursor(const Plan& plan) : plan_(&plan) {}
    // The pieces of the next chunk (kData and kGone only), empty at the end.
    std::vector<Piece> Next();

   private:
    const Plan* plan_;
    size_t changed_index_ = 0;
    size_t gone_index_ = 0;
    uint64_t changed_done_ = 0;  // bytes of the current extent
    uint64_t gone_done_ = 0;
  };

  // A cursor whose Next() gives chunk number `index`.
  Cursor At(uint64_t index) const;

 private:
  uint64_t source_size_;
  ExtentList changed_;
  ExtentList gone_;
  uint64_t chunk_count_ = 0;
  Digest256 digest_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_TRANSFER_PLAN_H_
