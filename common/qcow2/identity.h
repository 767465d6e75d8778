// SPDX-License-Identifier: Apache-2.0
//
// What an export says of itself, in a header extension of its own: which
// replication it belongs to, and which generation it holds. QEMU keeps the
// extension when it rewrites a header, but clears the "untouched" bit when it
// opens the image for writing: the export is what its identity says only while
// that bit stands and the checksum over the first 512 bytes holds.
//
// The data of the extension, big-endian:
//
//   0  u32  version, 1
//   4  u32  CRC32C of the file's first 512 bytes with this field zero
//   8       generation, 16 bytes
//  24       the generation before it, 16 bytes; zeroes: none
//  40  u64  number of the generation
//  48  u64  when it was made, seconds of Unix time
//  56  u8   length of the replication's name, then the name
//
// Thread-safe: pure functions.
#ifndef SNAPSYNC_COMMON_QCOW2_IDENTITY_H_
#define SNAPSYNC_COMMON_QCOW2_IDENTITY_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/base/id128.h"

namespace snapsync::qcow2 {

struct Identity {
  static constexpr size_t kMaxReplicationBytes = 128;
  // Of the extension's data, at most.
  static constexpr size_t kMaxBytes = 56 + 1 + kMaxReplicationBytes;

  std::string replication;  // --uuid
  Id128 generation;
  Id128 previous;
  uint64_t number = 0;
  uint64_t unix_seconds = 0;

  friend bool operator==(const Identity&, const Identity&) = default;
};

// The data of the extension, its checksum still zero. Requires a replication of
// at most kMaxReplicationBytes.
std::vector<std::byte> EncodeIdentity(const Identity& identity);

// nullopt: no data of such an extension (of this version).
std::optional<Identity> DecodeIdentity(std::span<const std::byte> data);

// Writes the checksum into `sector`, the first 512 bytes of a file, whose
// extension's data begin at `data_at`.
void SealIdentity(std::span<std::byte, 512> sector, size_t data_at);

// The checksum holds.
bool IdentityIsSealed(std::span<const std::byte, 512> sector, size_t data_at);

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_IDENTITY_H_
