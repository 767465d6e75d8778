// SPDX-License-Identifier: Apache-2.0
#include "common/transfer/chunk.h"

#include <string>

#include "common/base/error.h"
#include "common/base/units.h"

namespace snapsync {
namespace {

// Devices are written in whole sectors.

}  // namespace

Checksum128 ChecksumOf(const Chunk& chunk) {
  Xxh3 hash;
  hash.Update(chunk.index).Update(chunk.pieces.size());
  for (const Piece& piece : chunk.pieces) {
    hash.Update(piece.offset)
        .Update(piece.length)
        .Update(static_cast<uint64_t>(piece.kind));
  }
  return hash.Update(chunk.data).Finish();
}

absl::Status CheckChunk(const Chunk& chunk, uint64_t size) {
  const auto refuse = [&](const std::string& what) {
    return Error(Reason::kOther, "chunk " + std::to_string(chunk.index) +
                                     " from the sender: " + what);
  };
  if (chunk.pieces.empty() || chunk.pieces.size() > kChunkPieces) {
    return refuse(std::to_string(chunk.pieces.size()) +
                  " pieces, allowed 1 to " + std::to_string(kChunkPieces));
  }
  uint64_t at = 0;
  uint64_t data_bytes = 0;
  uint64_t gone_bytes = 0;
  for (const Piece& piece : chunk.pieces) {
    if (piece.offset < at || piece.offset > size || piece.length == 0 ||
        piece.length > size - piece.offset) {
      return refuse("piece of " + std::to_string(piece.length) +
                    " bytes at offset " + std::to_string(piece.offset) +
                    " is out of order, empty, or beyond the volume of " +
                    std::to_string(size) + " bytes");
    }
    if (piece.offset % kSectorBytes != 0 || piece.length % kSectorBytes != 0) {
      return refuse("piece at offset " + std::to_string(piece.offset) +
                    " is not made of whole sectors");
    }
    at = piece.offset + piece.length;
    (piece.kind == PieceKind::kData ? data_bytes : gone_bytes) += piece.length;
  }
  if (data_bytes > kChunkDataBytes || gone_bytes > 2 * kChunkGoneBytes) {
    return refuse("larger than a chunk may be");
  }
  if (data_bytes != chunk.data.size()) {
    return refuse("holds " + std::to_string(chunk.data.size()) +
                  " bytes of data, its pieces say " +
                  std::to_string(data_bytes));
  }
  if (ChecksumOf(chunk) != chunk.checksum) {
    return Error(Reason::kVerification,
                 "chunk " + std::to_string(chunk.index) +
                     ": the checksum does not match what arrived; memory or "
                     "network hardware damaged it on the way");
  }
  return absl::OkStatus();
}

Digest256 ExtendSessionDigest(const Digest256& digest,
                              const Checksum128& checksum) {
  return Sha256().Update(digest).Update(checksum).Finish();
}

}  // namespace snapsync
