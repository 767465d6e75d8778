// SPDX-License-Identifier: Apache-2.0
//
// The header of a QCOW2 file and its extensions. An input is the beginning of a
// file, whose rest is zeroes; its last byte says how long that is, in units of
// 16 KiB.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "common/qcow2/header.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using snapsync::qcow2::Header;
  using snapsync::qcow2::kMaxHeaderAreaBytes;
  if (size == 0) return 0;
  const size_t file_size = size - 1 + size_t{data[size - 1]} * 16384;
  static std::vector<std::byte> file;
  file.assign(std::min(file_size, kMaxHeaderAreaBytes), std::byte{0});
  std::copy_n(reinterpret_cast<const std::byte*>(data),
              std::min(size - 1, file.size()), file.begin());
  const auto header = snapsync::qcow2::ParseHeader(file, file_size, "input");
  if (!header.ok()) return 0;
  // What those who read the tables rely on.
  const auto in_file = [&](uint64_t offset, uint64_t bytes) {
    return offset <= file_size && bytes <= file_size - offset &&
           offset % header->cluster_size() == 0;
  };
  const bool sound =
      in_file(header->l1_offset, header->needed_l1_entries() * 8) &&
      in_file(header->refcount_table_offset,
              header->refcount_table_clusters * header->cluster_size()) &&
      (header->snapshots == 0 ||
       in_file(header->snapshots_offset, header->snapshots * uint64_t{40})) &&
      (!header->bitmaps ||
       in_file(header->bitmaps->offset, header->bitmaps->bytes)) &&
      header->cluster_bits >= 9 && header->cluster_bits <= 21 &&
      header->size <= INT64_MAX && header->header_length <= file.size() &&
      header->has_data_file() != header->data_file_name.empty();
  if (!sound) std::abort();
  return 0;
}
