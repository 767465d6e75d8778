// SPDX-License-Identifier: Apache-2.0
//
// The QCOW2 format, versions 2 and 3, as QEMU's docs/interop/qcow2.rst
// describes it: where the fields are, and what their bits mean. All integers
// are big-endian. A file is an array of host clusters of 1 << cluster_bits
// bytes; cluster 0 holds the header and its extensions.
//
// What an L2 entry says of a guest cluster: nothing (0: what the backing file
// has, else zeroes), "reads as zeroes" (bit 0), a host cluster, or a compressed
// run of bytes (bit 62).
#ifndef SNAPSYNC_COMMON_QCOW2_FORMAT_H_
#define SNAPSYNC_COMMON_QCOW2_FORMAT_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace snapsync::qcow2 {

inline constexpr uint32_t kMagic = 0x514649fb;
inline constexpr uint32_t kMinClusterBits = 9;
inline constexpr uint32_t kMaxClusterBits = 21;

// Offsets in the header.
inline constexpr size_t kMagicAt = 0;
inline constexpr size_t kVersionAt = 4;
inline constexpr size_t kBackingOffsetAt = 8;
inline constexpr size_t kBackingSizeAt = 16;
inline constexpr size_t kClusterBitsAt = 20;
inline constexpr size_t kSizeAt = 24;
inline constexpr size_t kCryptMethodAt = 32;
inline constexpr size_t kL1SizeAt = 36;
inline constexpr size_t kL1OffsetAt = 40;
inline constexpr size_t kRefcountTableOffsetAt = 48;
inline constexpr size_t kRefcountTableClustersAt = 56;
inline constexpr size_t kSnapshotCountAt = 60;
inline constexpr size_t kSnapshotsOffsetAt = 64;
inline constexpr size_t kVersion2HeaderBytes = 72;
inline constexpr size_t kIncompatibleAt = 72;
inline constexpr size_t kCompatibleAt = 80;
inline constexpr size_t kAutoclearAt = 88;
inline constexpr size_t kRefcountOrderAt = 96;
inline constexpr size_t kHeaderLengthAt = 100;
inline constexpr size_t kCompressionTypeAt = 104;
inline constexpr size_t kHeaderBytes = 112;  // of what we write

inline constexpr uint64_t kL1EntryBytes = 8;

inline constexpr uint64_t kIncompatibleDirty = uint64_t{1} << 0U;
inline constexpr uint64_t kIncompatibleCorrupt = uint64_t{1} << 1U;
inline constexpr uint64_t kIncompatibleDataFile = uint64_t{1} << 2U;
inline constexpr uint64_t kIncompatibleCompressionType = uint64_t{1} << 3U;
inline constexpr uint64_t kIncompatibleExtendedL2 = uint64_t{1} << 4U;
inline constexpr uint64_t kAutoclearBitmaps = uint64_t{1} << 0U;
inline constexpr uint64_t kAutoclearRawDataFile = uint64_t{1} << 1U;

// Two bits of our own. The first stands in unfinished files alone: every reader
// refuses them with the text in the table of feature names. The second is
// cleared by QEMU when it opens an image for writing: while it stands, the
// image is what we made of it (identity.h).
inline constexpr unsigned kIncompleteBit = 63;
inline constexpr uint64_t kIncompatibleIncomplete = uint64_t{1}
                                                    << kIncompleteBit;
inline constexpr char kIncompleteName[] = "SnapSync: incomplete";
inline constexpr unsigned kUntouchedBit = 62;
inline constexpr uint64_t kAutoclearUntouched = uint64_t{1} << kUntouchedBit;
inline constexpr char kUntouchedName[] = "SnapSync: untouched export";

inline constexpr uint8_t kCompressionDeflate = 0;
inline constexpr uint8_t kCompressionZstd = 1;

// Header extensions: u32 type, u32 length, data, padding to 8 bytes.
inline constexpr size_t kExtensionHeadBytes = 8;
inline constexpr uint32_t kExtensionEnd = 0;
inline constexpr uint32_t kExtensionBackingFormat = 0xe2792aca;
inline constexpr uint32_t kExtensionFeatureNames = 0x6803f857;
inline constexpr uint32_t kExtensionBitmaps = 0x23852875;
inline constexpr uint32_t kExtensionLuks = 0x0537be77;
inline constexpr uint32_t kExtensionDataFile = 0x44415441;
inline constexpr uint32_t kExtensionIdentity =
    0x534e5359;  // "SNSY": identity.h

// Of an entry of the table of feature names: u8 type, u8 bit, char[46].
inline constexpr size_t kFeatureNameBytes = 48;
inline constexpr uint8_t kFeatureIncompatible = 0;
inline constexpr uint8_t kFeatureAutoclear = 2;

// L1 and standard L2 entries.
inline constexpr uint64_t kEntryOffsetMask = 0x00fffffffffffe00;
inline constexpr uint64_t kEntryCopied = uint64_t{1} << 63U;  // refcount is 1
inline constexpr uint64_t kL2Compressed = uint64_t{1} << 62U;
inline constexpr uint64_t kL2Zero = 1;

template <typename T>
T ByteSwapped(T value) {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8);
  if constexpr (sizeof(T) == 2) return __builtin_bswap16(value);
  if constexpr (sizeof(T) == 4) return __builtin_bswap32(value);
  if constexpr (sizeof(T) == 8) return __builtin_bswap64(value);
}

template <typename T>
T LoadBig(const std::byte* bytes) {
  static_assert(std::endian::native == std::endian::little);
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return ByteSwapped(value);
}

template <typename T>
void StoreBig(std::byte* bytes, T value) {
  value = ByteSwapped(value);
  std::memcpy(bytes, &value, sizeof value);
}

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_FORMAT_H_
