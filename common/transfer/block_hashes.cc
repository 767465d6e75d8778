// SPDX-License-Identifier: Apache-2.0
#include "common/transfer/block_hashes.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "common/block/zeroes.h"

namespace snapsync {
namespace {

// Unmapped ones cost nothing, but a batch must end some time.
constexpr size_t kBatchBlocks = 4096;

Digest256 HashOfZeroes(uint64_t length) {
  const std::vector<std::byte> zeroes(length);
  return Sha256().Update(zeroes).Finish();
}

}  // namespace

BlockHasher::BlockHasher(BlockReader* reader, uint64_t size, ExtentList mapped,
                         bool read_ahead, uint64_t first_block)
    : reader_(reader),
      size_(size),
      mapped_(std::move(mapped)),
      zeroes_(HashOfZeroes(kHashBlockBytes)),
      next_block_(first_block),
      batches_(
          MakeBatches(mapped_, read_ahead),
          [this](Batch& batch) { return Fill(batch); }, read_ahead) {}

std::vector<std::unique_ptr<BlockHasher::Batch>> BlockHasher::MakeBatches(
    const ExtentList& mapped, bool read_ahead) {
  // A small volume needs no large buffers.
  const uint64_t blocks = HashBlockCount(mapped.bytes()) + 1;
  const uint64_t bytes = std::min(kBatchBytes, blocks * kHashBlockBytes);
  std::vector<std::unique_ptr<Batch>> batches;
  for (size_t i = 0; i < (read_ahead ? kBatches : 1); ++i) {
    batches.push_back(std::make_unique<Batch>(bytes));
  }
  return batches;
}

bool BlockHasher::IsMapped(Extent block) {
  const std::vector<Extent>& extents = mapped_.extents();
  while (next_extent_ < extents.size() &&
         extents[next_extent_].end() <= block.offset) {
    ++next_extent_;
  }
  return next_extent_ < extents.size() &&
         extents[next_extent_].offset < block.end();
}

absl::StatusOr<bool> BlockHasher::Fill(Batch& batch) {
  const uint64_t count = HashBlockCount(size_);
  const uint64_t device_end = reader_->size();
  const uint64_t readable_end = device_end / kSectorBytes * kSectorBytes;
  batch.blocks.clear();
  std::vector<ReadOperation> reads;
  uint64_t used = 0;
  for (; next_block_ < count && batch.blocks.size() < kBatchBlocks &&
         used + kHashBlockBytes <= batch.buffer.size();
       ++next_block_) {
    const uint64_t offset = next_block_ * kHashBlockBytes;
    Block block;
    block.length = std::min(kHashBlockBytes, size_ - offset);
    const uint64_t end = offset + block.length;
    block.mapped = IsMapped({offset, block.length});
    block.unreadable =
        offset < device_end && readable_end < end && readable_end != device_end;
    if (block.mapped && offset < readable_end && !block.unreadable) {
      const uint64_t length = std::min(end, readable_end) - offset;
      std::byte* data = batch.buffer.data() + used;
      std::memset(data + length, 0, block.length - length);
      if (!reads.empty() &&
          reads.back().offset + reads.back().data.size() == offset &&
          reads.back().data.size() < kReadBytes) {
        reads.back().data = {reads.back().data.data(),
                             reads.back().data.size() + length};
      } else {
        reads.push_back({offset, {data, length}});
      }
      block.data = data;
      used += kHashBlockBytes;
    }
    batch.blocks.push_back(block);
  }
  if (!reads.empty()) SNAPSYNC_RETURN_IF_ERROR(reader_->Read(reads));
  return !batch.blocks.empty();
}

Digest256 BlockHasher::HashOf(const Block& block) const {
  if (block.unreadable) return Digest256{};
  const bool zero = block.data == nullptr || IsZero({block.data, block.length});
  if (!zero) return Sha256().Update({block.data, block.length}).Finish();
  return block.length == kHashBlockBytes ? zeroes_ : HashOfZeroes(block.length);
}

absl::StatusOr<std::span<const HashedBlock>> BlockHasher::Next() {
  hashed_.clear();
  SNAPSYNC_ASSIGN_OR_RETURN(const Batch* batch, batches_.Next());
  if (batch == nullptr) return std::span<const HashedBlock>();
  for (const Block& block : batch->blocks) {
    hashed_.push_back({HashOf(block), block.mapped});
  }
  return std::span<const HashedBlock>(hashed_);
}

}  // namespace snapsync
