// SPDX-License-Identifier: Apache-2.0
//
// The numbers of the dm-thin metadata format (docs/formats.md, "Thin
// metadata"). All integers on the disk are little-endian. A metadata block is
// 4096 bytes; block numbers count from the start of the metadata device;
// sectors are 512 bytes. `k...At` is the offset of a field in bytes from the
// start of its block.
#ifndef SNAPSYNC_COMMON_THIN_FORMAT_H_
#define SNAPSYNC_COMMON_THIN_FORMAT_H_

#include <cstddef>
#include <cstdint>

namespace snapsync {

inline constexpr size_t kMetadataBlockSize = 4096;
// The most that the kernel's space map can number: 255 index entries of 16320
// blocks.
inline constexpr uint64_t kMetadataBlocksMax = 255 * 16320;

// Every block begins with a CRC-32C over its bytes 4..4095, without the final
// inversion, XORed with a salt that names the kind of block, and holds its own
// number at byte 8.
inline constexpr size_t kChecksumAt = 0;
inline constexpr size_t kChecksumFrom = 4;
inline constexpr size_t kBlockNumberAt = 8;
inline constexpr uint32_t kSuperblockSalt = 160774;
inline constexpr uint32_t kNodeSalt = 121107;

// Superblock: block 0, and the copy that a metadata snapshot is.
inline constexpr uint64_t kSuperblockMagic = 27022010;
inline constexpr uint32_t kSuperblockVersion = 2;
inline constexpr size_t kSuperblockFlagsAt = 4;
inline constexpr size_t kSuperblockMagicAt = 32;
inline constexpr size_t kSuperblockVersionAt = 40;
inline constexpr size_t kSuperblockTimeAt = 44;
inline constexpr size_t kSuperblockTransactionAt = 48;
inline constexpr size_t kSuperblockHeldRootAt = 56;
inline constexpr size_t kDataSpaceMapBlocksAt = 64;
inline constexpr size_t kMetadataSpaceMapBlocksAt = 192;
inline constexpr size_t kDataMappingRootAt = 320;
inline constexpr size_t kDeviceDetailsRootAt = 328;
inline constexpr size_t kDataBlockSizeAt = 336;
inline constexpr size_t kMetadataBlockSizeAt = 340;
inline constexpr size_t kIncompatibleFlagsAt = 360;
inline constexpr uint32_t kFlagNeedsCheck = 1;

// data_block_size, in sectors: a multiple of 64 KiB, at most 1 GiB.
inline constexpr uint32_t kDataBlockSectorsUnit = 128;
inline constexpr uint32_t kDataBlockSectorsMax = 2097152;

// Btree node: header, then max_entries keys of 8 bytes, then max_entries
// values.
inline constexpr uint32_t kNodeInternal = 1;
inline constexpr uint32_t kNodeLeaf = 2;
inline constexpr size_t kNodeFlagsAt = 4;
inline constexpr size_t kNodeEntriesAt = 16;
inline constexpr size_t kNodeMaxEntriesAt = 20;
inline constexpr size_t kNodeValueSizeAt = 24;
inline constexpr size_t kNodeKeysAt = 32;
inline constexpr size_t kKeySize = 8;
inline constexpr uint32_t kChildValueSize = 8;
inline constexpr uint32_t kMappingValueSize = 8;
inline constexpr uint32_t kDetailsValueSize = 24;
// 252 entries a node: far fewer levels than this hold all that fits.
inline constexpr int kTreeHeightMax = 12;

// A mapping: data block number above, time of its making below.
inline constexpr unsigned kTimeBits = 24;
inline constexpr uint64_t kTimeMask = (uint64_t{1} << kTimeBits) - 1;
// From this pool time on the kernel itself damages mappings: it packs the time
// into 24 bits unmasked.
inline constexpr uint32_t kTimeLimit = uint32_t{1} << kTimeBits;
inline constexpr uint32_t kTimeWarning = kTimeLimit - (uint32_t{1} << 20);

// Fields of a value of the device details tree.
inline constexpr size_t kDetailsMappedBlocksAt = 0;
inline constexpr size_t kDetailsTransactionAt = 8;
inline constexpr size_t kDetailsCreationTimeAt = 16;
inline constexpr size_t kDetailsSnapshottedTimeAt = 20;

inline constexpr uint32_t kDeviceIdMax = (uint32_t{1} << 24) - 1;

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_THIN_FORMAT_H_
