// SPDX-License-Identifier: Apache-2.0
#include "common/base/crc32c.h"

#include <array>

#include "common/base/endian.h"

namespace snapsync {
namespace {

constexpr std::array<uint32_t, 256> MakeTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78U : 0U);
    }
    table[i] = crc;
  }
  return table;
}

uint32_t ByTable(uint32_t crc, std::span<const std::byte> data) {
  static constexpr std::array<uint32_t, 256> kTable = MakeTable();
  for (const std::byte byte : data) {
    crc = (crc >> 8) ^ kTable[(crc ^ static_cast<uint32_t>(byte)) & 0xFF];
  }
  return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t ByInstruction(
    uint32_t crc, std::span<const std::byte> data) {
  uint64_t state = crc;
  const std::byte* at = data.data();
  size_t left = data.size();
  for (; left >= 8; left -= 8, at += 8) {
    state = __builtin_ia32_crc32di(state, LoadLittle<uint64_t>(at));
  }
  crc = static_cast<uint32_t>(state);
  for (; left > 0; --left, ++at) {
    crc = __builtin_ia32_crc32qi(crc, static_cast<uint8_t>(*at));
  }
  return crc;
}
#endif

}  // namespace

uint32_t Crc32c(std::span<const std::byte> data) {
#if defined(__x86_64__)
  static const bool kHasInstruction = __builtin_cpu_supports("sse4.2") != 0;
  if (kHasInstruction) return ~ByInstruction(~0U, data);
#endif
  return ~ByTable(~0U, data);
}

}  // namespace snapsync
