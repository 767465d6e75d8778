// SPDX-License-Identifier: Apache-2.0
//
// A chunk: the numbered unit in which a plan travels. It holds a few pieces of
// the volume, in ascending order, and the bytes of those pieces that are data.
// Scattered changes of 64 KiB share a chunk; a long run is cut into many.
//
// The checksum (XXH3-128 over index, pieces and data) is made right after the
// read on the sender and checked right before the write on the agent.
#ifndef SNAPSYNC_COMMON_TRANSFER_CHUNK_H_
#define SNAPSYNC_COMMON_TRANSFER_CHUNK_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "common/base/digest.h"
#include "common/base/units.h"

namespace snapsync {

// Data in one chunk. 1 MiB was the fastest message size in measurements of
// gRPC streams (64 KiB: 0.74 of its speed, 4 MiB: 0.70).
inline constexpr uint64_t kChunkDataBytes = kMiB;
// Pieces in one chunk: bounds the message and the batch of writes.
inline constexpr size_t kChunkPieces = 256;
// Bytes to be zeroed by one chunk: bounds the time that it takes.
inline constexpr uint64_t kChunkGoneBytes = 4 * kGiB;
// Zero runs are found in units of this, at multiples of it: the smallest block
// of a thin pool, of which every larger one is a multiple.
inline constexpr uint64_t kZeroGrainBytes = 64 * kKiB;

enum class PieceKind : uint8_t {
  kData = 0,  // its bytes are in the chunk
  kZero = 1,  // read as zeroes on the sender
  kGone = 2,  // unmapped on the sender: reads as zeroes
};

struct Piece {
  uint64_t offset = 0;  // bytes
  uint64_t length = 0;  // bytes
  PieceKind kind = PieceKind::kData;
  friend bool operator==(const Piece&, const Piece&) = default;
};

struct Chunk {
  uint64_t index = 0;
  std::vector<Piece> pieces;
  // The bytes of the data pieces, one after the other. Not owned.
  std::span<const std::byte> data;
  Checksum128 checksum{};
};

Checksum128 ChecksumOf(const Chunk& chunk);

// Checks everything about a chunk that came from a peer: limits, order, bounds
// against a volume of `size` bytes, alignment, length of the data, checksum.
// kVerification for a wrong checksum, kOther (a peer's fault) for the rest.
absl::Status CheckChunk(const Chunk& chunk, uint64_t size);

// The digest over a session: over the checksums of all chunks, in order.
// Independent of how chunks were put into segments.
Digest256 ExtendSessionDigest(const Digest256& digest,
                              const Checksum128& checksum);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_TRANSFER_CHUNK_H_
