// SPDX-License-Identifier: Apache-2.0
#include "agent/hasher.h"

#include <span>
#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace snapsync {
namespace {

ExtentList AllOf(uint64_t size) {
  ExtentList all;
  all.Append({0, size});
  return all;
}

}  // namespace

Hasher::Hasher(std::unique_ptr<BlockReader> reader, uint64_t size,
               uint64_t first_block, bool read_ahead)
    : reader_(std::move(reader)),
      blocks_(std::make_unique<BlockHasher>(reader_.get(), size, AllOf(size),
                                            read_ahead, first_block)) {}

absl::StatusOr<std::vector<Digest256>> Hasher::Next() {
  MutexLock lock(&mutex_);
  SNAPSYNC_RETURN_IF_ERROR(status_);
  SNAPSYNC_ASSIGN_OR_RETURN(const std::span<const HashedBlock> blocks,
                            blocks_->Next());
  std::vector<Digest256> digests;
  digests.reserve(blocks.size());
  for (const HashedBlock& block : blocks) digests.push_back(block.digest);
  return digests;
}

void Hasher::Fence() {
  Fence(Error(Reason::kConnection,
              "the target is compared again or written to; this comparison is "
              "void"));
}

void Hasher::Fence(const absl::Status& reason) {
  MutexLock lock(&mutex_);
  if (status_.ok()) status_ = reason;
  blocks_.reset();
  reader_.reset();
}

}  // namespace snapsync
