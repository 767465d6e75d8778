// SPDX-License-Identifier: Apache-2.0
//
// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), with the processor's
// instruction where it has one. Used by dm-thin metadata, the journal and the
// state files. Thread-safe.
#ifndef SNAPSYNC_COMMON_BASE_CRC32C_H_
#define SNAPSYNC_COMMON_BASE_CRC32C_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace snapsync {

// The standard CRC-32C: seed and final inversion of all bits.
// Crc32c("123456789") == 0xE3069283.
uint32_t Crc32c(std::span<const std::byte> data);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BASE_CRC32C_H_
