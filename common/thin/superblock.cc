// SPDX-License-Identifier: Apache-2.0
#include "common/thin/superblock.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/base/aligned_buffer.h"
#include "common/base/crc32c.h"
#include "common/base/endian.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "common/thin/format.h"

namespace snapsync {
namespace {

absl::StatusOr<Superblock> ReadOne(MetadataReader& reader, uint64_t block) {
  AlignedBuffer buffer(kMetadataBlockSize);
  const uint64_t blocks[] = {block};
  SNAPSYNC_RETURN_IF_ERROR(reader.Read(blocks, buffer.span()));
  return ParseSuperblock(reader.name(), block, buffer.span());
}

absl::Status CheckRoot(const std::string& device, const Superblock& superblock,
                       std::string_view field, uint64_t root) {
  if (root > 0 && root < superblock.metadata_blocks) return absl::OkStatus();
  return DamagedMetadata(device, superblock.block, field, absl::StrCat(root),
                         absl::StrCat("1 to ", superblock.metadata_blocks - 1));
}

}  // namespace

absl::StatusOr<Superblock> ParseSuperblock(const std::string& device,
                                           uint64_t block,
                                           std::span<const std::byte> bytes) {
  const auto u32 = [&](size_t at) { return LoadLittle<uint32_t>(&bytes[at]); };
  const auto u64 = [&](size_t at) { return LoadLittle<uint64_t>(&bytes[at]); };
  const auto damaged = [&](std::string_view field, uint64_t found,
                           std::string_view expected) {
    return DamagedMetadata(device, block,
                           absl::StrCat("superblock ", std::string(field)),
                           absl::StrCat(found), expected);
  };
  // The magic first: it tells what is not metadata at all from what is damaged.
  if (u64(kSuperblockMagicAt) != kSuperblockMagic) {
    return damaged("magic", u64(kSuperblockMagicAt),
                   absl::StrCat(kSuperblockMagic));
  }
  const uint32_t checksum =
      ~Crc32c(bytes.first(kMetadataBlockSize).subspan(kChecksumFrom)) ^
      kSuperblockSalt;
  if (u32(kChecksumAt) != checksum) {
    return damaged("checksum", u32(kChecksumAt), absl::StrCat(checksum));
  }
  if (u64(kBlockNumberAt) != block) {
    return damaged("block number", u64(kBlockNumberAt), absl::StrCat(block));
  }
  if (u32(kSuperblockVersionAt) != kSuperblockVersion) {
    return damaged(
        "version", u32(kSuperblockVersionAt),
        absl::StrCat(kSuperblockVersion, ", the only one this program reads"));
  }
  if (u32(kIncompatibleFlagsAt) != 0) {
    return damaged("incompatible features", u32(kIncompatibleFlagsAt),
                   "0: this program knows none");
  }
  if (u32(kMetadataBlockSizeAt) != kMetadataBlockSize / kSectorBytes) {
    return damaged("metadata block size", u32(kMetadataBlockSizeAt),
                   absl::StrCat(kMetadataBlockSize / kSectorBytes));
  }
  const uint32_t sectors = u32(kDataBlockSizeAt);
  if (sectors == 0 || sectors % kDataBlockSectorsUnit != 0 ||
      sectors > kDataBlockSectorsMax) {
    return damaged("data block size", sectors,
                   absl::StrCat("a multiple of ", kDataBlockSectorsUnit,
                                ", at most ", kDataBlockSectorsMax));
  }
  Superblock superblock;
  superblock.block = block;
  superblock.needs_check = (u32(kSuperblockFlagsAt) & kFlagNeedsCheck) != 0;
  superblock.time = u32(kSuperblockTimeAt);
  superblock.transaction_id = u64(kSuperblockTransactionAt);
  superblock.held_root = u64(kSuperblockHeldRootAt);
  superblock.data_blocks = u64(kDataSpaceMapBlocksAt);
  superblock.metadata_blocks = u64(kMetadataSpaceMapBlocksAt);
  superblock.data_mapping_root = u64(kDataMappingRootAt);
  superblock.device_details_root = u64(kDeviceDetailsRootAt);
  superblock.data_block_sectors = sectors;
  return superblock;
}

absl::StatusOr<Superblock> ReadSuperblock(MetadataReader& reader,
                                          bool held_root) {
  SNAPSYNC_ASSIGN_OR_RETURN(Superblock superblock, ReadOne(reader, 0));
  if (superblock.metadata_blocks == 0 ||
      superblock.metadata_blocks > kMetadataBlocksMax) {
    return DamagedMetadata(reader.name(), 0, "superblock metadata blocks",
                           absl::StrCat(superblock.metadata_blocks),
                           absl::StrCat("1 to ", kMetadataBlocksMax));
  }
  if (held_root) {
    if (superblock.held_root == 0) {
      return Error(Reason::kIo,
                   absl::StrCat(reader.name(),
                                ": holds no metadata snapshot; read it without "
                                "--metadata-snapshot"));
    }
    SNAPSYNC_RETURN_IF_ERROR(CheckRoot(reader.name(), superblock,
                                       "superblock held root",
                                       superblock.held_root));
    SNAPSYNC_ASSIGN_OR_RETURN(Superblock held,
                              ReadOne(reader, superblock.held_root));
    // The copy's own space maps are blank.
    held.data_blocks = superblock.data_blocks;
    held.metadata_blocks = superblock.metadata_blocks;
    if (held.data_block_sectors != superblock.data_block_sectors) {
      return DamagedMetadata(reader.name(), held.block,
                             "superblock data block size",
                             absl::StrCat(held.data_block_sectors),
                             absl::StrCat(superblock.data_block_sectors));
    }
    superblock = held;
  }
  SNAPSYNC_RETURN_IF_ERROR(CheckRoot(reader.name(), superblock,
                                     "superblock data mapping root",
                                     superblock.data_mapping_root));
  SNAPSYNC_RETURN_IF_ERROR(CheckRoot(reader.name(), superblock,
                                     "superblock device details root",
                                     superblock.device_details_root));
  return superblock;
}

}  // namespace snapsync
