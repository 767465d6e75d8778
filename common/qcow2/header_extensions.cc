// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/header_extensions.h"

#include <set>
#include <string_view>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "common/qcow2/format.h"

namespace snapsync::qcow2 {
namespace {

// More than QEMU knows, and few enough to look for repeats.
constexpr size_t kMaxExtensions = 64;
constexpr size_t kMaxFormatNameBytes = 15;  // QEMU's limit
constexpr size_t kMaxDataFileNameBytes = 1023;
constexpr size_t kBitmapsBytes = 24;
constexpr uint32_t kMaxBitmaps = 65535;
constexpr uint64_t kMaxBitmapDirectoryBytes = 64 * kMiB;

std::string_view TextOf(std::span<const std::byte> data) {
  return {reinterpret_cast<const char*>(data.data()), data.size()};
}

struct Extension {
  uint32_t type = 0;
  size_t at = 0;  // of its head
  std::span<const std::byte> data;
};

class ExtensionParser {
 public:
  ExtensionParser(std::span<const std::byte> first_bytes,
                  const std::string& name, Header& header)
      : first_bytes_(first_bytes), name_(name), header_(header) {}

  absl::Status Parse(size_t at, size_t end) {
    while (end - at >= kExtensionHeadBytes) {
      Extension extension;
      extension.at = at;
      extension.type = LoadBig<uint32_t>(first_bytes_.data() + at);
      const size_t length = LoadBig<uint32_t>(first_bytes_.data() + at + 4);
      at += kExtensionHeadBytes;
      if (length > end - at) {
        return Damaged(extension,
                       "has " + std::to_string(length) +
                           " bytes of data where there is room for " +
                           std::to_string(end - at));
      }
      if (extension.type == kExtensionEnd) {
        if (length == 0) return absl::OkStatus();
        return Damaged(extension, "ends the extensions and yet has data");
      }
      extension.data = first_bytes_.subspan(at, length);
      if (!seen_.insert(extension.type).second) {
        return Damaged(extension, "is there twice");
      }
      if (seen_.size() > kMaxExtensions) {
        return Damaged(extension, "is one too many: more than " +
                                      std::to_string(kMaxExtensions));
      }
      SNAPSYNC_RETURN_IF_ERROR(Take(extension));
      const size_t padded = (length + 7) / 8 * 8;
      if (padded >= end - at) return absl::OkStatus();
      at += padded;
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Take(const Extension& extension) {
    switch (extension.type) {
      case kExtensionBackingFormat:
        return TakeText(extension, kMaxFormatNameBytes, header_.backing_format);
      case kExtensionDataFile:
        return TakeText(extension, kMaxDataFileNameBytes,
                        header_.data_file_name);
      case kExtensionFeatureNames:
        return TakeFeatureNames(extension);
      case kExtensionBitmaps:
        return TakeBitmaps(extension);
      case kExtensionIdentity:
        header_.identity = DecodeIdentity(extension.data);
        header_.identity_data_at = extension.at + kExtensionHeadBytes;
        return absl::OkStatus();
      default:
        // Of no concern to a reader. (kExtensionLuks comes with an encryption
        // that is refused by its method.)
        return absl::OkStatus();
    }
  }

  absl::Status TakeText(const Extension& extension, size_t limit,
                        std::string& out) {
    const std::string_view text = TextOf(extension.data);
    if (text.empty() || text.size() > limit) {
      return Damaged(extension, "holds a name of " +
                                    std::to_string(text.size()) +
                                    " bytes; 1 to " + std::to_string(limit) +
                                    " are possible");
    }
    if (text.find('\0') != std::string_view::npos) {
      return Damaged(extension, "holds a name with a zero byte");
    }
    out = text;
    return absl::OkStatus();
  }

  absl::Status TakeFeatureNames(const Extension& extension) {
    for (size_t at = 0; extension.data.size() - at >= kFeatureNameBytes;
         at += kFeatureNameBytes) {
      const auto entry = extension.data.subspan(at, kFeatureNameBytes);
      const std::string_view text = TextOf(entry.subspan(2));
      header_.feature_names.push_back(
          {std::to_integer<uint8_t>(entry[0]),
           std::to_integer<uint8_t>(entry[1]),
           Printable(text.substr(0, text.find('\0')))});
    }
    return absl::OkStatus();
  }

  absl::Status TakeBitmaps(const Extension& extension) {
    if (extension.data.size() != kBitmapsBytes) {
      return Damaged(extension, "(bitmaps) has " +
                                    std::to_string(extension.data.size()) +
                                    " bytes of data, not 24");
    }
    // Without the bit nothing of it is in force.
    if ((header_.autoclear_features & kAutoclearBitmaps) == 0) {
      return absl::OkStatus();
    }
    const std::byte* data = extension.data.data();
    BitmapDirectory& bitmaps = header_.bitmaps.emplace();
    bitmaps.count = LoadBig<uint32_t>(data);
    bitmaps.bytes = LoadBig<uint64_t>(data + 8);
    bitmaps.offset = LoadBig<uint64_t>(data + 16);
    if (bitmaps.count == 0 || bitmaps.count > kMaxBitmaps ||
        LoadBig<uint32_t>(data + 4) != 0) {
      return Damaged(extension, "(bitmaps) tells of " +
                                    std::to_string(bitmaps.count) +
                                    " bitmaps, or uses a reserved field");
    }
    if (bitmaps.bytes > kMaxBitmapDirectoryBytes || bitmaps.offset == 0 ||
        bitmaps.offset % header_.cluster_size() != 0) {
      return Damaged(extension, "(bitmaps) has a directory of " +
                                    std::to_string(bitmaps.bytes) +
                                    " bytes at offset " +
                                    std::to_string(bitmaps.offset));
    }
    return absl::OkStatus();
  }

  absl::Status Damaged(const Extension& extension,
                       const std::string& what) const {
    return Error(Reason::kIo,
                 name_ + ": damaged header: the extension of type " +
                     std::to_string(extension.type) + " at offset " +
                     std::to_string(extension.at) + " " + what);
  }

  const std::span<const std::byte> first_bytes_;
  const std::string& name_;
  Header& header_;
  std::set<uint32_t> seen_;
};

}  // namespace

absl::Status ParseExtensions(std::span<const std::byte> first_bytes,
                             size_t begin, size_t end, const std::string& name,
                             Header& header) {
  return ExtensionParser(first_bytes, name, header).Parse(begin, end);
}

}  // namespace snapsync::qcow2
