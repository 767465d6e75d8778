// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/header.h"

#include <algorithm>
#include <string_view>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "common/qcow2/format.h"
#include "common/qcow2/header_extensions.h"

namespace snapsync::qcow2 {
namespace {

// QEMU's limits; so nothing that it made is beyond them.
constexpr uint64_t kMaxL1Bytes = 32 * kMiB;
constexpr uint64_t kMaxRefcountTableBytes = 8 * kMiB;
constexpr uint32_t kMaxSnapshots = 65536;
constexpr uint32_t kMaxBackingNameBytes = 1023;
constexpr uint64_t kMaxSize = INT64_MAX;
constexpr uint32_t kMinVersion3HeaderBytes = 104;
constexpr uint32_t kMaxRefcountOrder = 6;
constexpr uint32_t kMinExtendedL2ClusterBits = 14;
constexpr uint64_t kMinSnapshotBytes = 40;

constexpr uint64_t kKnownIncompatible =
    kIncompatibleDirty | kIncompatibleCorrupt | kIncompatibleDataFile |
    kIncompatibleCompressionType | kIncompatibleExtendedL2;

constexpr char kConvertFirst[] =
    "convert it with `qemu-img convert -O qcow2` first";

class HeaderParser {
 public:
  HeaderParser(std::span<const std::byte> first_bytes, uint64_t file_size,
               const std::string& name)
      : bytes_(first_bytes), file_size_(file_size), name_(name) {}

  absl::StatusOr<Header> Parse() {
    SNAPSYNC_RETURN_IF_ERROR(ParseKind());
    SNAPSYNC_RETURN_IF_ERROR(ParseVersion3());
    SNAPSYNC_RETURN_IF_ERROR(ParseExtensionArea());
    SNAPSYNC_RETURN_IF_ERROR(CheckFeatures());
    SNAPSYNC_RETURN_IF_ERROR(CheckEncryption());
    SNAPSYNC_RETURN_IF_ERROR(ParseBackingName());
    SNAPSYNC_RETURN_IF_ERROR(ParseL1());
    SNAPSYNC_RETURN_IF_ERROR(ParseRefcountTable());
    SNAPSYNC_RETURN_IF_ERROR(ParseOptionalTables());
    return std::move(header_);
  }

 private:
  absl::Status ParseKind() {
    if (bytes_.size() < 8 || Field<uint32_t>(kMagicAt) != kMagic) {
      return Error(Reason::kTargetUnsuitable,
                   name_ +
                       ": not a QCOW2 image (its first bytes are not "
                       "\"QFI\\xfb\"); if it is another format, " +
                       kConvertFirst);
    }
    header_.version = Field<uint32_t>(kVersionAt);
    if (header_.version != 2 && header_.version != 3) {
      return Unsupported("version " + std::to_string(header_.version) +
                         " of QCOW2; versions 2 and 3 are supported");
    }
    if (bytes_.size() < kVersion2HeaderBytes) return Short();
    header_.cluster_bits = Field<uint32_t>(kClusterBitsAt);
    if (header_.cluster_bits < kMinClusterBits ||
        header_.cluster_bits > kMaxClusterBits) {
      return Damaged("cluster_bits", kClusterBitsAt, header_.cluster_bits,
                     "9 to 21 are possible");
    }
    return absl::OkStatus();
  }

  absl::Status ParseVersion3() {
    if (header_.version == 2) return absl::OkStatus();
    if (bytes_.size() < kMinVersion3HeaderBytes) return Short();
    header_.incompatible_features = Field<uint64_t>(kIncompatibleAt);
    header_.compatible_features = Field<uint64_t>(kCompatibleAt);
    header_.autoclear_features = Field<uint64_t>(kAutoclearAt);
    header_.refcount_order = Field<uint32_t>(kRefcountOrderAt);
    header_.header_length = Field<uint32_t>(kHeaderLengthAt);
    const uint32_t length = header_.header_length;
    if (length < kMinVersion3HeaderBytes || length % 8 != 0 ||
        length > header_.cluster_size()) {
      return Damaged("header_length", kHeaderLengthAt, length,
                     "a multiple of 8, from 104 to a cluster, is possible");
    }
    if (length > bytes_.size()) return Short();
    if (length > kCompressionTypeAt) {
      header_.compression_type =
          std::to_integer<uint8_t>(bytes_[kCompressionTypeAt]);
    }
    return absl::OkStatus();
  }

  // Extensions end where the backing file's name begins, which is checked for
  // that purpose here.
  absl::Status ParseExtensionArea() {
    const auto offset = Field<uint64_t>(kBackingOffsetAt);
    uint64_t end = header_.cluster_size();
    if (offset != 0) {
      if (offset < header_.header_length || offset > end) {
        return Damaged("backing_file_offset", kBackingOffsetAt, offset,
                       "the name lies after the header in the first cluster");
      }
      end = offset;
    }
    end = std::min<uint64_t>(end, bytes_.size());
    if (end < header_.header_length) return Short();
    SNAPSYNC_RETURN_IF_ERROR(ParseExtensions(bytes_, header_.header_length,
                                             static_cast<size_t>(end), name_,
                                             header_));
    header_.untouched =
        header_.identity.has_value() &&
        (header_.autoclear_features & kAutoclearUntouched) != 0 &&
        bytes_.size() >= 512 &&
        IdentityIsSealed(bytes_.first<512>(), header_.identity_data_at);
    return absl::OkStatus();
  }

  absl::Status CheckFeatures() {
    const uint64_t unknown =
        header_.incompatible_features & ~kKnownIncompatible;
    if (unknown != 0) {
      return Unsupported("features that are unknown here: " + NamesOf(unknown));
    }
    const bool other_compression =
        (header_.incompatible_features & kIncompatibleCompressionType) != 0;
    if (header_.compression_type > kCompressionZstd) {
      return Unsupported("compression type " +
                         std::to_string(header_.compression_type) +
                         "; deflate (0) and zstd (1) are supported");
    }
    if (other_compression !=
        (header_.compression_type != kCompressionDeflate)) {
      return Damaged("compression_type", kCompressionTypeAt,
                     header_.compression_type,
                     "incompatible feature bit 3 says otherwise");
    }
    if (header_.extended_l2() &&
        header_.cluster_bits < kMinExtendedL2ClusterBits) {
      return Damaged("cluster_bits", kClusterBitsAt, header_.cluster_bits,
                     "with extended L2 entries it is 14 at least");
    }
    if (!header_.has_data_file()) {
      // Left from a time when it had one.
      header_.data_file_name.clear();
      if ((header_.autoclear_features & kAutoclearRawDataFile) != 0) {
        return Damaged("autoclear_features", kAutoclearAt,
                       header_.autoclear_features,
                       "a raw external data file without an external data "
                       "file");
      }
    } else if (header_.data_file_name.empty()) {
      return Error(Reason::kIo, name_ +
                                    ": damaged header: it has an external "
                                    "data file, but no name of it");
    }
    return absl::OkStatus();
  }

  absl::Status CheckEncryption() {
    const auto method = Field<uint32_t>(kCryptMethodAt);
    if (method == 0) return absl::OkStatus();
    const std::string which = method == 1   ? "AES"
                              : method == 2 ? "LUKS"
                                            : std::to_string(method);
    return Error(Reason::kTargetUnsuitable,
                 name_ + ": encrypted (method " + which +
                     "), which is not supported: convert it to an image "
                     "without encryption with `qemu-img convert` first");
  }

  absl::Status ParseBackingName() {
    const auto offset = Field<uint64_t>(kBackingOffsetAt);
    if (offset == 0) return absl::OkStatus();
    const auto length = Field<uint32_t>(kBackingSizeAt);
    if (length == 0 || length > kMaxBackingNameBytes ||
        length > header_.cluster_size() - offset) {
      return Damaged("backing_file_size", kBackingSizeAt, length,
                     "1 to 1023 bytes within the first cluster are possible");
    }
    if (offset + length > bytes_.size()) return Short();
    header_.backing_name.assign(
        reinterpret_cast<const char*>(bytes_.data() + offset), length);
    if (header_.backing_name.find('\0') != std::string::npos) {
      return Error(Reason::kIo, name_ +
                                    ": damaged header: the backing file's "
                                    "name at offset " +
                                    std::to_string(offset) +
                                    " has a zero byte in it");
    }
    return absl::OkStatus();
  }

  absl::Status ParseL1() {
    header_.size = Field<uint64_t>(kSizeAt);
    header_.l1_entries = Field<uint32_t>(kL1SizeAt);
    header_.l1_offset = Field<uint64_t>(kL1OffsetAt);
    if (header_.size > kMaxSize) {
      return Damaged("size", kSizeAt, header_.size, "2^63 - 1 is the limit");
    }
    const uint64_t needed = header_.needed_l1_entries();
    if (header_.l1_entries < needed ||
        header_.l1_entries * kL1EntryBytes > kMaxL1Bytes) {
      return Damaged("l1_size", kL1SizeAt, header_.l1_entries,
                     "the disk needs " + std::to_string(needed) +
                         " entries, and 4194304 are the limit");
    }
    if (header_.l1_entries == 0 && header_.l1_offset == 0) {
      return absl::OkStatus();
    }
    return CheckTable("l1_table_offset", kL1OffsetAt, header_.l1_offset,
                      needed * kL1EntryBytes);
  }

  absl::Status ParseRefcountTable() {
    header_.refcount_table_offset = Field<uint64_t>(kRefcountTableOffsetAt);
    header_.refcount_table_clusters = Field<uint32_t>(kRefcountTableClustersAt);
    if (header_.refcount_order > kMaxRefcountOrder) {
      return Damaged("refcount_order", kRefcountOrderAt, header_.refcount_order,
                     "6 is the limit");
    }
    const uint64_t bytes =
        header_.refcount_table_clusters * header_.cluster_size();
    if (bytes == 0 || bytes > kMaxRefcountTableBytes) {
      return Damaged("refcount_table_clusters", kRefcountTableClustersAt,
                     header_.refcount_table_clusters,
                     "1 cluster to 8 MiB are possible");
    }
    return CheckTable("refcount_table_offset", kRefcountTableOffsetAt,
                      header_.refcount_table_offset, bytes);
  }

  absl::Status ParseOptionalTables() {
    header_.snapshots = Field<uint32_t>(kSnapshotCountAt);
    header_.snapshots_offset = Field<uint64_t>(kSnapshotsOffsetAt);
    if (header_.snapshots > kMaxSnapshots) {
      return Damaged("nb_snapshots", kSnapshotCountAt, header_.snapshots,
                     "65536 is the limit");
    }
    if (header_.snapshots_offset % header_.cluster_size() != 0 ||
        header_.snapshots_offset > kMaxSize) {
      return Unaligned("snapshots_offset", kSnapshotsOffsetAt,
                       header_.snapshots_offset);
    }
    if (header_.snapshots != 0) {
      SNAPSYNC_RETURN_IF_ERROR(CheckTable(
          "snapshots_offset", kSnapshotsOffsetAt, header_.snapshots_offset,
          header_.snapshots * kMinSnapshotBytes));
    }
    if (header_.bitmaps &&
        !InFile(header_.bitmaps->offset, header_.bitmaps->bytes)) {
      return Error(Reason::kIo,
                   name_ + ": truncated: the directory of bitmaps at offset " +
                       std::to_string(header_.bitmaps->offset) + " (" +
                       std::to_string(header_.bitmaps->bytes) +
                       " bytes) lies beyond the end of the file");
    }
    return absl::OkStatus();
  }

  bool InFile(uint64_t offset, uint64_t bytes) const {
    return offset <= file_size_ && bytes <= file_size_ - offset;
  }

  // A table that a field points to: aligned, not the header itself, and within
  // the file.
  absl::Status CheckTable(std::string_view field, size_t at, uint64_t offset,
                          uint64_t bytes) {
    if (offset == 0 || offset % header_.cluster_size() != 0) {
      return Unaligned(field, at, offset);
    }
    if (!InFile(offset, bytes)) {
      return Damaged(field, at, offset,
                     "the table of " + std::to_string(bytes) +
                         " bytes lies beyond the end of the file (" +
                         std::to_string(file_size_) +
                         " bytes): is the file truncated?");
    }
    return absl::OkStatus();
  }

  std::string NamesOf(uint64_t bits) const {
    std::string text;
    for (unsigned bit = 0; bit < 64; ++bit) {
      if ((bits >> bit & 1U) == 0) continue;
      if (!text.empty()) text += ", ";
      const auto named = std::find_if(
          header_.feature_names.begin(), header_.feature_names.end(),
          [&](const FeatureName& name) {
            return name.type == kFeatureIncompatible && name.bit == bit &&
                   !name.name.empty();
          });
      text += named != header_.feature_names.end()
                  ? named->name
                  : "bit " + std::to_string(bit);
    }
    return text;
  }

  absl::Status Unaligned(std::string_view field, size_t at, uint64_t offset) {
    return Damaged(field, at, offset,
                   "not a multiple of the cluster size (" +
                       std::to_string(header_.cluster_size()) +
                       "), or the header's own cluster");
  }

  absl::Status Damaged(std::string_view field, size_t at, uint64_t value,
                       std::string_view why) const {
    return Error(Reason::kIo,
                 name_ + ": damaged header: " + std::string(field) +
                     " (offset " + std::to_string(at) + ") is " +
                     std::to_string(value) + ": " + std::string(why));
  }

  absl::Status Short() const {
    return Error(Reason::kIo, name_ + ": truncated: it ends at byte " +
                                  std::to_string(file_size_) +
                                  ", within its header");
  }

  absl::Status Unsupported(const std::string& what) const {
    return Error(Reason::kTargetUnsuitable,
                 name_ + ": not supported: " + what + "; " + kConvertFirst);
  }

  template <typename T>
  T Field(size_t at) const {
    return LoadBig<T>(bytes_.data() + at);
  }

  const std::span<const std::byte> bytes_;
  const uint64_t file_size_;
  const std::string& name_;
  Header header_;
};

}  // namespace

uint64_t Header::needed_l1_entries() const {
  // disk_size() is less than 2^63, and the reach 2^39 at most.
  return (disk_size() + l1_entry_reach() - 1) / l1_entry_reach();
}

absl::StatusOr<Header> ParseHeader(std::span<const std::byte> first_bytes,
                                   uint64_t file_size,
                                   const std::string& name) {
  return HeaderParser(first_bytes, file_size, name).Parse();
}

std::string Printable(std::string_view text, size_t limit) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (const char c : text.substr(0, limit)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      out += c;
      continue;
    }
    out += "\\x";
    out += kDigits[byte >> 4U];
    out += kDigits[byte & 15U];
  }
  if (text.size() > limit) out += "...";
  return out;
}

}  // namespace snapsync::qcow2
