// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/identity.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "common/base/crc32c.h"
#include "common/qcow2/format.h"

namespace snapsync::qcow2 {
namespace {

constexpr uint32_t kIdentityVersion = 1;
constexpr size_t kChecksumAt = 4;
constexpr size_t kGenerationAt = 8;
constexpr size_t kPreviousAt = 24;
constexpr size_t kNumberAt = 40;
constexpr size_t kTimeAt = 48;
constexpr size_t kNameLengthAt = 56;
constexpr size_t kNameAt = 57;

uint32_t ChecksumOf(std::span<const std::byte, 512> sector, size_t data_at) {
  std::array<std::byte, 512> copy{};
  std::copy(sector.begin(), sector.end(), copy.begin());
  StoreBig<uint32_t>(copy.data() + data_at + kChecksumAt, 0);
  return Crc32c(copy);
}

}  // namespace

std::vector<std::byte> EncodeIdentity(const Identity& identity) {
  std::vector<std::byte> data(kNameAt + identity.replication.size());
  StoreBig(data.data(), kIdentityVersion);
  std::copy(identity.generation.bytes.begin(), identity.generation.bytes.end(),
            data.begin() + kGenerationAt);
  std::copy(identity.previous.bytes.begin(), identity.previous.bytes.end(),
            data.begin() + kPreviousAt);
  StoreBig(data.data() + kNumberAt, identity.number);
  StoreBig(data.data() + kTimeAt, identity.unix_seconds);
  data[kNameLengthAt] = static_cast<std::byte>(identity.replication.size());
  std::memcpy(data.data() + kNameAt, identity.replication.data(),
              identity.replication.size());
  return data;
}

std::optional<Identity> DecodeIdentity(std::span<const std::byte> data) {
  if (data.size() < kNameAt ||
      LoadBig<uint32_t>(data.data()) != kIdentityVersion) {
    return std::nullopt;
  }
  const auto length = std::to_integer<size_t>(data[kNameLengthAt]);
  if (length > Identity::kMaxReplicationBytes ||
      data.size() != kNameAt + length) {
    return std::nullopt;
  }
  Identity identity;
  std::copy_n(data.begin() + kGenerationAt, 16,
              identity.generation.bytes.begin());
  std::copy_n(data.begin() + kPreviousAt, 16, identity.previous.bytes.begin());
  identity.number = LoadBig<uint64_t>(data.data() + kNumberAt);
  identity.unix_seconds = LoadBig<uint64_t>(data.data() + kTimeAt);
  identity.replication.assign(
      reinterpret_cast<const char*>(data.data() + kNameAt), length);
  return identity;
}

void SealIdentity(std::span<std::byte, 512> sector, size_t data_at) {
  StoreBig(sector.data() + data_at + kChecksumAt, ChecksumOf(sector, data_at));
}

bool IdentityIsSealed(std::span<const std::byte, 512> sector, size_t data_at) {
  if (data_at > sector.size() - kNameAt) return false;
  return LoadBig<uint32_t>(sector.data() + data_at + kChecksumAt) ==
         ChecksumOf(sector, data_at);
}

}  // namespace snapsync::qcow2
