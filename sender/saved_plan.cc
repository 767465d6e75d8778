// SPDX-License-Identifier: Apache-2.0
#include "sender/saved_plan.h"

#include <cstring>
#include <span>
#include <utility>

#include "common/base/crc32c.h"
#include "common/base/endian.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"

namespace snapsync {
namespace {

constexpr uint32_t kSavedPlanMagic = 0x50534e53;  // "SNSP"
constexpr uint32_t kSavedPlanVersion = 1;
constexpr size_t kHeaderBytes = 64;
constexpr size_t kExtentBytes = 16;
constexpr size_t kChecksumBytes = 4;

std::byte* Store(std::byte* at, const ExtentList& list) {
  for (const Extent& extent : list.extents()) {
    StoreLittle(at, extent.offset);
    StoreLittle(at + 8, extent.length);
    at += kExtentBytes;
  }
  return at;
}

}  // namespace

std::string EncodePlan(const SavedPlan& saved) {
  const uint64_t changed = saved.plan.changed().extents().size();
  const uint64_t gone = saved.plan.gone().extents().size();
  std::string contents(
      kHeaderBytes + (changed + gone) * kExtentBytes + kChecksumBytes, '\0');
  auto* const begin = reinterpret_cast<std::byte*>(contents.data());
  StoreLittle(begin, kSavedPlanMagic);
  StoreLittle(begin + 4, kSavedPlanVersion);
  std::memcpy(begin + 8, saved.generation.bytes.data(), 16);
  std::memcpy(begin + 24, saved.base.bytes.data(), 16);
  StoreLittle(begin + 40, saved.plan.source_size());
  StoreLittle(begin + 48, changed);
  StoreLittle(begin + 56, gone);
  std::byte* at = begin + kHeaderBytes;
  at = Store(at, saved.plan.changed());
  at = Store(at, saved.plan.gone());
  StoreLittle(at, Crc32c({begin, at}));
  return contents;
}

absl::StatusOr<SavedPlan> DecodePlan(const std::string& path,
                                     std::string_view contents) {
  const auto refuse = [&path](const std::string& what) {
    return Error(Reason::kIo, path + ": " + what);
  };
  const auto bytes = std::as_bytes(std::span(contents));
  if (bytes.size() < kHeaderBytes + kChecksumBytes ||
      LoadLittle<uint32_t>(bytes.data()) != kSavedPlanMagic) {
    return refuse("is no saved plan");
  }
  const size_t body = bytes.size() - kChecksumBytes;
  if (LoadLittle<uint32_t>(&bytes[body]) != Crc32c(bytes.first(body))) {
    return refuse("the checksum is wrong");
  }
  const auto version = LoadLittle<uint32_t>(&bytes[4]);
  if (version != kSavedPlanVersion) {
    return refuse("version " + std::to_string(version) + ", expected " +
                  std::to_string(kSavedPlanVersion));
  }
  Id128 generation;
  Id128 base;
  std::memcpy(generation.bytes.data(), &bytes[8], 16);
  std::memcpy(base.bytes.data(), &bytes[24], 16);
  const auto size = LoadLittle<uint64_t>(&bytes[40]);
  const auto changed_count = LoadLittle<uint64_t>(&bytes[48]);
  const auto gone_count = LoadLittle<uint64_t>(&bytes[56]);
  const uint64_t count = (body - kHeaderBytes) / kExtentBytes;
  if ((body - kHeaderBytes) % kExtentBytes != 0 || changed_count > count ||
      gone_count != count - changed_count) {
    return refuse("the number of extents is not that of the header");
  }
  ExtentList changed;
  ExtentList gone;
  const std::byte* at = bytes.data() + kHeaderBytes;
  uint64_t end = 0;
  for (uint64_t i = 0; i < count; ++i, at += kExtentBytes) {
    if (i == changed_count) end = 0;
    const Extent extent{LoadLittle<uint64_t>(at), LoadLittle<uint64_t>(at + 8)};
    if (extent.offset < end || extent.offset > size || extent.length == 0 ||
        extent.length > size - extent.offset ||
        extent.offset % kSectorBytes != 0 ||
        extent.length % kSectorBytes != 0) {
      return refuse("extent " + std::to_string(i) +
                    " is out of order or range");
    }
    end = extent.end();
    (i < changed_count ? changed : gone).Append(extent);
  }
  if (Union(changed, gone).bytes() != changed.bytes() + gone.bytes()) {
    return refuse("changed and gone extents overlap");
  }
  return SavedPlan{generation, base,
                   Plan(size, std::move(changed), std::move(gone))};
}

}  // namespace snapsync
