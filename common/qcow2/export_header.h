// SPDX-License-Identifier: Apache-2.0
//
// The header of our exports: the first kHeaderAreaBytes of the file, always
// laid out in one way, so that all that ever changes lies in the first 512
// bytes, which a disk writes whole or not at all:
//
//   0    header of version 3, 112 bytes
//   112  extension: identity (identity.h)
//        extension: format of the backing file, in an overlay
//        extension: names of the feature bits, "end"
//        name of the backing file, in an overlay
//
// An unfinished file has the same with the "incomplete" bit, which makes every
// reader refuse it by that name, and with the stage's name in place of the
// generation's.
//
// Thread-safe: pure functions.
#ifndef SNAPSYNC_COMMON_QCOW2_EXPORT_HEADER_H_
#define SNAPSYNC_COMMON_QCOW2_EXPORT_HEADER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/qcow2/geometry.h"
#include "common/qcow2/identity.h"

namespace snapsync::qcow2 {

// The smallest cluster that we write.
inline constexpr size_t kHeaderAreaBytes = 4096;
inline constexpr size_t kHeaderSectorBytes = 512;
inline constexpr size_t kMaxBackingNameBytes = 1023;

struct ExportHeader {
  Geometry geometry;
  uint64_t size = 0;  // bytes, virtual
  uint32_t l1_entries = 0;
  uint64_t l1_offset = 0;
  uint64_t refcount_table_offset = 0;
  uint32_t refcount_table_clusters = 0;
  uint8_t compression_type = 0;
  bool incomplete = false;
  Identity identity;
  std::string backing_name;  // a qcow2 file beside it; empty: none

  friend bool operator==(const ExportHeader&, const ExportHeader&) = default;
};

// kHeaderAreaBytes of them. Requires: names within their limits.
std::vector<std::byte> EncodeHeader(const ExportHeader& header);

// The header in the first kHeaderAreaBytes of `file`, if it is, to the byte,
// what EncodeHeader() makes of one: nobody has written to the file since.
// kBaseMismatch otherwise: it says why, and that a full export helps.
absl::StatusOr<ExportHeader> DecodeHeader(std::span<const std::byte> area,
                                          const std::string& file);

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_EXPORT_HEADER_H_
