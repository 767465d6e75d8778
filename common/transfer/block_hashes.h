// SPDX-License-Identifier: Apache-2.0
//
// The hashes by which two volumes are compared: SHA-256 of each block of
// 64 KiB, the last one clipped to the size. Both ends make them with this.
//
// What is not mapped is not read: its hash is that of zeroes. So is the hash of
// what lies beyond the end of the device. Reads are of 1 MiB, several in
// flight; memory is bounded by kBatches × kBatchBytes.
#ifndef SNAPSYNC_COMMON_TRANSFER_BLOCK_HASHES_H_
#define SNAPSYNC_COMMON_TRANSFER_BLOCK_HASHES_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/aligned_buffer.h"
#include "common/base/digest.h"
#include "common/base/read_ahead.h"
#include "common/base/units.h"
#include "common/block/block_device.h"
#include "common/block/extent.h"

namespace snapsync {

inline constexpr uint64_t kHashBlockBytes = 64 * kKiB;

// Blocks of a volume of `size` bytes.
inline constexpr uint64_t HashBlockCount(uint64_t size) {
  return size / kHashBlockBytes + (size % kHashBlockBytes != 0 ? 1 : 0);
}

struct HashedBlock {
  // All zeroes, which no block hashes to: the device ends within a sector of
  // this block, which so can't be read.
  Digest256 digest{};
  bool mapped = false;
};

// Used by one thread at a time.
class BlockHasher {
 public:
  static constexpr uint64_t kReadBytes = kMiB;
  static constexpr uint64_t kBatchBytes = 4 * kMiB;
  static constexpr size_t kBatches = 4;

  // Of [0, size) of `reader`, which must outlive it, where `mapped` lies, from
  // block `first_block` on. `read_ahead`: in a thread of its own.
  BlockHasher(BlockReader* reader, uint64_t size, ExtentList mapped,
              bool read_ahead, uint64_t first_block = 0);

  // The next blocks, in order and without gaps; none at the end. They stay
  // valid until the next call.
  absl::StatusOr<std::span<const HashedBlock>> Next();

 private:
  struct Block {
    uint64_t length = 0;
    const std::byte* data = nullptr;  // null: zeroes
    bool mapped = false;
    bool unreadable = false;
  };
  struct Batch {
    explicit Batch(uint64_t size) : buffer(size) {}
    AlignedBuffer buffer;
    std::vector<Block> blocks;
  };
  static std::vector<std::unique_ptr<Batch>> MakeBatches(
      const ExtentList& mapped, bool read_ahead);
  absl::StatusOr<bool> Fill(Batch& batch);
  bool IsMapped(Extent block);
  Digest256 HashOf(const Block& block) const;

  BlockReader* const reader_;
  const uint64_t size_;
  const ExtentList mapped_;
  const Digest256 zeroes_;  // of a whole block
  std::vector<HashedBlock> hashed_;

  // Used by Fill() alone.
  uint64_t next_block_;
  size_t next_extent_ = 0;

  ReadAhead<Batch> batches_;  // last: its thread uses the others
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_TRANSFER_BLOCK_HASHES_H_
