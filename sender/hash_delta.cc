// SPDX-License-Identifier: Apache-2.0
#include "sender/hash_delta.h"

#include <algorithm>
#include <span>
#include <string>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/transfer/block_hashes.h"

namespace snapsync {
namespace {

class Comparison {
 public:
  Comparison(BlockReader& source, uint64_t size, const ExtentList& mapped,
             bool read_ahead)
      : size_(size), blocks_(&source, size, mapped, read_ahead) {}

  absl::Status Take(uint64_t first_block, std::span<const Digest256> digests) {
    const uint64_t count = HashBlockCount(size_);
    if (first_block != next_ || digests.size() > count - next_) {
      return Error(Reason::kOther,
                   "the agent sent " + std::to_string(digests.size()) +
                       " hashes from block " + std::to_string(first_block) +
                       " on, expected were those from block " +
                       std::to_string(next_) + " on, of " +
                       std::to_string(count));
    }
    for (const Digest256& theirs : digests) {
      if (ours_.empty()) {
        SNAPSYNC_ASSIGN_OR_RETURN(ours_, blocks_.Next());
      }
      const HashedBlock& block = ours_.front();
      if (block.digest != theirs) {
        const uint64_t offset = next_ * kHashBlockBytes;
        (block.mapped ? delta.changed : delta.gone)
            .Append({offset, std::min(kHashBlockBytes, size_ - offset)});
      }
      ours_ = ours_.subspan(1);
      ++next_;
    }
    return absl::OkStatus();
  }

  absl::Status CheckComplete() const {
    if (next_ == HashBlockCount(size_)) return absl::OkStatus();
    return Error(Reason::kOther, "the agent sent " + std::to_string(next_) +
                                     " hashes of " +
                                     std::to_string(HashBlockCount(size_)));
  }

  HashDelta delta;

 private:
  const uint64_t size_;
  BlockHasher blocks_;
  std::span<const HashedBlock> ours_;  // that were not compared yet
  uint64_t next_ = 0;                  // block
};

}  // namespace

absl::StatusOr<HashDelta> CompareByHash(
    AgentClient& agent, const HashRequest& request, BlockReader& source,
    const ExtentList& mapped, bool read_ahead,
    const std::function<bool()>& interrupted) {
  Comparison comparison(source, request.source_size, mapped, read_ahead);
  SNAPSYNC_ASSIGN_OR_RETURN(
      comparison.delta.base,
      agent.HashBlocks(request,
                       [&](const Id128& /*generation*/, uint64_t first_block,
                           std::span<const Digest256> digests) -> absl::Status {
                         if (interrupted()) {
                           return Error(Reason::kConnection, "interrupted");
                         }
                         return comparison.Take(first_block, digests);
                       }));
  SNAPSYNC_RETURN_IF_ERROR(comparison.CheckComplete());
  return std::move(comparison.delta);
}

}  // namespace snapsync
