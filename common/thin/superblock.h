// SPDX-License-Identifier: Apache-2.0
//
// The superblock of thin metadata: block 0, or the copy of it that a metadata
// snapshot (the held root) is.
#ifndef SNAPSYNC_COMMON_THIN_SUPERBLOCK_H_
#define SNAPSYNC_COMMON_THIN_SUPERBLOCK_H_

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/thin/metadata_device.h"

namespace snapsync {

struct Superblock {
  uint64_t block = 0;  // where it lies
  bool needs_check = false;
  uint32_t time = 0;            // snapshots ever made in this pool
  uint64_t transaction_id = 0;  // LVM's counter
  uint64_t held_root = 0;       // block of the metadata snapshot, 0 = none
  // Zero in a held root: take both from the live superblock.
  uint64_t data_blocks = 0;
  uint64_t metadata_blocks = 0;
  uint64_t data_mapping_root = 0;
  uint64_t device_details_root = 0;
  uint32_t data_block_sectors = 0;

  uint32_t data_block_bytes() const { return data_block_sectors * 512; }
  friend bool operator==(const Superblock&, const Superblock&) = default;
};

// The superblock in `bytes`, read from `block` of `device`. kIo for damage and
// for versions and features that this reader does not know. Numbers of blocks
// are bounded by the caller: those of a held root need the live superblock.
absl::StatusOr<Superblock> ParseSuperblock(const std::string& device,
                                           uint64_t block,
                                           std::span<const std::byte> bytes);

// Reads the live superblock, or, with `held_root`, that of the metadata
// snapshot, with the space map sizes of the live one. All block numbers in it
// lie within them. kIo when there is no metadata snapshot.
absl::StatusOr<Superblock> ReadSuperblock(MetadataReader& reader,
                                          bool held_root);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_THIN_SUPERBLOCK_H_
