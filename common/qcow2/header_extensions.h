// SPDX-License-Identifier: Apache-2.0
//
// The extensions between the fields of a header and the backing file's name:
// u32 type, u32 length, data, padding to 8 bytes, until a type of 0. A part of
// header.h.
//
// Thread-safe: pure functions.
#ifndef SNAPSYNC_COMMON_QCOW2_HEADER_EXTENSIONS_H_
#define SNAPSYNC_COMMON_QCOW2_HEADER_EXTENSIONS_H_

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "common/qcow2/header.h"

namespace snapsync::qcow2 {

// Reads the extensions in [begin, end) of `first_bytes` into `header`, whose
// feature bits and cluster_bits are there already. Requires begin <= end <=
// first_bytes.size().
absl::Status ParseExtensions(std::span<const std::byte> first_bytes,
                             size_t begin, size_t end, const std::string& name,
                             Header& header);

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_HEADER_EXTENSIONS_H_
