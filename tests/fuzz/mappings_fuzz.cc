// SPDX-License-Identifier: Apache-2.0
//
// The reader of saved mappings on hostile files. An input is a byte of flags,
// then the groups: length (2 bytes, little-endian), then that many bytes. Each
// is written with its right length and checksum behind a right header, so an
// input of a few bytes reaches what lies behind those. Flag 1: no header and no
// checksums, the bytes are the file.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "common/base/crc32c.h"
#include "common/base/endian.h"
#include "common/thin/saved_mappings.h"

namespace snapsync {
namespace {

using Bytes = std::vector<std::byte>;

void AppendChecksum(Bytes& file, size_t from) {
  const uint32_t sum = Crc32c(std::span(file).subspan(from));
  file.resize(file.size() + 4);
  StoreLittle(file.data() + file.size() - 4, sum);
}

Bytes FileOf(std::span<const uint8_t> input) {
  constexpr size_t kHeaderBytes = 40;
  constexpr size_t kGroupHeaderBytes = 28;
  Bytes file(kHeaderBytes);
  StoreLittle<uint32_t>(file.data(), 0x4d504e53);  // "SNPM"
  StoreLittle<uint32_t>(file.data() + 4, 1);
  AppendChecksum(file, 0);
  while (input.size() >= 2) {
    const size_t length =
        std::min(input[0] | size_t{input[1]} << 8U, input.size() - 2);
    const size_t at = file.size();
    file.resize(at + std::max(length, kGroupHeaderBytes));
    std::copy_n(reinterpret_cast<const std::byte*>(input.data()) + 2, length,
                file.begin() + static_cast<ptrdiff_t>(at));
    StoreLittle<uint32_t>(
        file.data() + at + 4,
        static_cast<uint32_t>(file.size() - at - kGroupHeaderBytes));
    AppendChecksum(file, at);
    input = input.subspan(2 + length);
  }
  return file;
}

}  // namespace
}  // namespace snapsync

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace snapsync;
  if (size == 0) return 0;
  const std::span<const uint8_t> input(data + 1, size - 1);
  Bytes file = FileOf(input);
  if ((data[0] & 1U) != 0) {
    const auto* bytes = reinterpret_cast<const std::byte*>(input.data());
    file.assign(bytes, bytes + input.size());
  }
  size_t at = 0;
  auto reader = MappingsReader::Open(
      "file", SavedMappingsName{},
      [&](std::span<std::byte> out) -> absl::StatusOr<size_t> {
        const size_t count = std::min(out.size(), file.size() - at);
        std::copy_n(file.begin() + static_cast<ptrdiff_t>(at), count,
                    out.begin());
        at += count;
        return count;
      });
  if (!reader.ok()) return 0;
  uint64_t end = 0;
  uint64_t mappings = 0;
  while (true) {
    const auto next = reader->Next();
    if (!next.ok()) break;
    if (!*next) {
      if (mappings != reader->mappings()) std::abort();
      break;
    }
    const MappingRun& run = **next;
    // What a reader of the delta relies on.
    if (run.length == 0 || run.first < end || run.end() < run.first) {
      std::abort();
    }
    end = run.end();
    mappings += run.length;
  }
  return 0;
}
