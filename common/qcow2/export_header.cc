// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/export_header.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "common/base/error.h"
#include "common/qcow2/format.h"

namespace snapsync::qcow2 {
namespace {

constexpr uint32_t kExportVersion = 3;
constexpr uint32_t kRefcountOrder = 4;  // 16 bits
constexpr size_t kIdentityAt = kHeaderBytes + kExtensionHeadBytes;
constexpr char kBackingFormat[] = "qcow2";

struct ExportedFeature {
  uint8_t type;
  unsigned bit;
  const char* name;
};
constexpr ExportedFeature kFeatureNames[] = {
    {kFeatureIncompatible, 3, "compression type"},
    {kFeatureIncompatible, kIncompleteBit, kIncompleteName},
    {kFeatureAutoclear, kUntouchedBit, kUntouchedName},
};

// Writes extension after extension.
class ExtensionWriter {
 public:
  explicit ExtensionWriter(std::byte* area) : area_(area) {}

  void Add(uint32_t type, std::span<const std::byte> data) {
    StoreBig(area_ + at_, type);
    StoreBig(area_ + at_ + 4, static_cast<uint32_t>(data.size()));
    at_ += kExtensionHeadBytes;
    if (!data.empty()) std::memcpy(area_ + at_, data.data(), data.size());
    at_ += (data.size() + 7) / 8 * 8;
  }
  size_t at() const { return at_; }

 private:
  std::byte* const area_;
  size_t at_ = kHeaderBytes;
};

std::vector<std::byte> EncodeFeatureNames() {
  std::vector<std::byte> data(std::size(kFeatureNames) * kFeatureNameBytes);
  std::byte* at = data.data();
  for (const ExportedFeature& feature : kFeatureNames) {
    at[0] = static_cast<std::byte>(feature.type);
    at[1] = static_cast<std::byte>(feature.bit);
    std::memcpy(at + 2, feature.name, std::strlen(feature.name));
    at += kFeatureNameBytes;
  }
  return data;
}

// `length` bytes at `offset` as text, if they lie within the area.
std::string TextAt(std::span<const std::byte> area, uint64_t offset,
                   uint64_t length) {
  if (length > kMaxBackingNameBytes || offset > area.size() ||
      length > area.size() - offset) {
    return "";
  }
  return {reinterpret_cast<const char*>(area.data() + offset), length};
}

// For the right words: extensions begin at multiples of 8.
bool MayHaveIdentity(std::span<const std::byte> area) {
  for (size_t at = kHeaderBytes; at < area.size(); at += 8) {
    if (LoadBig<uint32_t>(area.data() + at) == kExtensionIdentity) return true;
  }
  return false;
}

absl::Status Changed(const std::string& file, const std::string& how) {
  return Error(Reason::kBaseMismatch,
               file + " changed since export: " + how + "; run a full export");
}

}  // namespace

std::vector<std::byte> EncodeHeader(const ExportHeader& header) {
  std::vector<std::byte> area(kHeaderAreaBytes);
  std::byte* to = area.data();
  StoreBig(to + kMagicAt, kMagic);
  StoreBig(to + kVersionAt, kExportVersion);
  StoreBig(to + kClusterBitsAt, header.geometry.cluster_bits);
  StoreBig(to + kSizeAt, header.size);
  StoreBig(to + kL1SizeAt, header.l1_entries);
  StoreBig(to + kL1OffsetAt, header.l1_offset);
  StoreBig(to + kRefcountTableOffsetAt, header.refcount_table_offset);
  StoreBig(to + kRefcountTableClustersAt, header.refcount_table_clusters);
  uint64_t incompatible = header.incomplete ? kIncompatibleIncomplete : 0;
  if (header.compression_type != kCompressionDeflate) {
    incompatible |= kIncompatibleCompressionType;
  }
  StoreBig(to + kIncompatibleAt, incompatible);
  StoreBig(to + kAutoclearAt, header.incomplete ? 0 : kAutoclearUntouched);
  StoreBig(to + kRefcountOrderAt, kRefcountOrder);
  StoreBig(to + kHeaderLengthAt, static_cast<uint32_t>(kHeaderBytes));
  to[kCompressionTypeAt] = static_cast<std::byte>(header.compression_type);

  ExtensionWriter extensions(to);
  extensions.Add(kExtensionIdentity, EncodeIdentity(header.identity));
  if (!header.backing_name.empty()) {
    extensions.Add(
        kExtensionBackingFormat,
        std::as_bytes(
            std::span(kBackingFormat).first(std::strlen(kBackingFormat))));
  }
  extensions.Add(kExtensionFeatureNames, EncodeFeatureNames());
  extensions.Add(kExtensionEnd, {});
  if (!header.backing_name.empty()) {
    StoreBig<uint64_t>(to + kBackingOffsetAt, extensions.at());
    StoreBig(to + kBackingSizeAt,
             static_cast<uint32_t>(header.backing_name.size()));
    std::memcpy(to + extensions.at(), header.backing_name.data(),
                header.backing_name.size());
  }
  SealIdentity(std::span(area).first<kHeaderSectorBytes>(), kIdentityAt);
  return area;
}

absl::StatusOr<ExportHeader> DecodeHeader(std::span<const std::byte> area,
                                          const std::string& file) {
  const std::byte* from = area.data();
  if (area.size() != kHeaderAreaBytes ||
      LoadBig<uint32_t>(from + kMagicAt) != kMagic || !MayHaveIdentity(area)) {
    return Error(Reason::kBaseMismatch,
                 file + " is no export of SnapSync; run a full export");
  }
  // QEMU keeps the extension, but elsewhere.
  if (LoadBig<uint32_t>(from + kHeaderBytes) != kExtensionIdentity) {
    return Changed(file, "another program opened it for writing");
  }
  const uint64_t identity_bytes = LoadBig<uint32_t>(from + kHeaderBytes + 4);
  const std::optional<Identity> identity =
      identity_bytes > Identity::kMaxBytes
          ? std::nullopt
          : DecodeIdentity(area.subspan(kIdentityAt, identity_bytes));
  if (!identity.has_value()) {
    return Changed(file, "its identity can't be read");
  }
  ExportHeader header;
  header.identity = *identity;
  header.geometry.cluster_bits = LoadBig<uint32_t>(from + kClusterBitsAt);
  if (header.geometry.cluster_bits < Geometry::kMinWriteBits ||
      header.geometry.cluster_bits > kMaxClusterBits) {
    return Changed(file, "cluster_bits is " +
                             std::to_string(header.geometry.cluster_bits));
  }
  header.size = LoadBig<uint64_t>(from + kSizeAt);
  header.l1_entries = LoadBig<uint32_t>(from + kL1SizeAt);
  header.l1_offset = LoadBig<uint64_t>(from + kL1OffsetAt);
  header.refcount_table_offset =
      LoadBig<uint64_t>(from + kRefcountTableOffsetAt);
  header.refcount_table_clusters =
      LoadBig<uint32_t>(from + kRefcountTableClustersAt);
  header.compression_type = std::to_integer<uint8_t>(from[kCompressionTypeAt]);
  header.incomplete = (LoadBig<uint64_t>(from + kIncompatibleAt) &
                       kIncompatibleIncomplete) != 0;
  header.backing_name = TextAt(area, LoadBig<uint64_t>(from + kBackingOffsetAt),
                               LoadBig<uint32_t>(from + kBackingSizeAt));
  const uint64_t autoclear = LoadBig<uint64_t>(from + kAutoclearAt);
  if (!header.incomplete && (autoclear & kAutoclearUntouched) == 0) {
    return Changed(file, "another program opened it for writing");
  }
  if (EncodeHeader(header) != std::vector(area.begin(), area.end())) {
    return Changed(file, "its header is not the one that was written");
  }
  return header;
}

}  // namespace snapsync::qcow2
