// SPDX-License-Identifier: Apache-2.0
//
// The metadata reader and the delta on hostile metadata. An input is a byte of
// flags, then patches of an image:
//
//   block (1 byte), offset (2, little-endian), length (1), that many bytes
//
// Flags: 1 the image is a good pool of three devices, else zeroes; 2 patched
// blocks get right checksums; 4 and their own block numbers; 8 the metadata
// snapshot is read. So an input of a few bytes reaches what lies behind the
// checksums.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <span>
#include <vector>

#include "common/thin/guarded_delta.h"
#include "tests/unit/common/thin/memory_metadata.h"
#include "tests/unit/common/thin/metadata_builder.h"

namespace snapsync {
namespace {

constexpr uint64_t kDeviceSize = 64 * 65536 - 4096;

std::vector<std::byte> GoodImage() {
  MappingMap first;
  for (uint64_t key = 0; key < 60; ++key) first[key] = {key, 1};
  MappingMap second = first;
  second[30] = {100, 2};
  second.erase(50);
  MetadataBuilder builder(4, 5);
  return builder.Finish({{1, {first, 1, 2, 2}},
                         {2, {second, 2, 3, 3}},
                         {3, {{{7, {7, 1}}}, 3, 4, 4}}},
                        4, 128);
}

void Patch(MemoryMetadata& metadata, std::span<const uint8_t> input,
           uint8_t flags) {
  std::set<uint64_t> patched;
  while (input.size() >= 4) {
    const uint64_t block = input[0] % metadata.block_count();
    const size_t offset =
        (input[1] | size_t{input[2]} << 8U) % kMetadataBlockSize;
    const size_t length = std::min(
        {size_t{input[3]}, input.size() - 4, kMetadataBlockSize - offset});
    std::memcpy(metadata.block(block) + offset, input.data() + 4, length);
    input = input.subspan(4 + length);
    patched.insert(block);
  }
  for (const uint64_t block : patched) {
    if ((flags & 4U) != 0) {
      StoreLittle<uint64_t>(metadata.block(block) + kBlockNumberAt, block);
    }
    const bool superblock =
        LoadLittle<uint64_t>(metadata.block(block) + kSuperblockMagicAt) ==
        kSuperblockMagic;
    if ((flags & 2U) != 0) {
      metadata.Seal(block, superblock ? kSuperblockSalt : kNodeSalt);
    }
  }
}

// What a reader of the delta relies on.
void CheckList(const ExtentList& list) {
  uint64_t end = 0;
  for (const Extent& extent : list.extents()) {
    if (extent.length == 0 || extent.offset > kDeviceSize ||
        extent.length > kDeviceSize - extent.offset ||
        (end != 0 && extent.offset <= end)) {
      std::abort();
    }
    end = extent.end();
  }
}

void Compare(MemoryMetadata& metadata, bool held, uint32_t base, uint32_t id) {
  auto view = PoolView::Open(metadata, held);
  if (!view.ok()) return;
  DeltaRequest request;
  request.snapshot_id = id;
  request.snapshot_size = kDeviceSize;
  if (base != 0) {
    // A record that fits, whatever the details say.
    const auto device = view->FindDevice(base);
    if (!device.ok() || !*device) return;
    BaseRecord& record = request.base.emplace();
    record.device_id = base;
    record.transaction_id = (*device)->transaction_id;
    record.creation_time = (*device)->creation_time;
    record.mapped_blocks = (*device)->mapped_blocks;
    record.data_block_sectors = view->superblock().data_block_sectors;
    record.device_size = base == 3 ? kDeviceSize / 2 : kDeviceSize;
  }
  const auto result = ComputeDelta(*view, request);
  if (!result.ok()) return;
  CheckList(result->delta.changed);
  CheckList(result->delta.gone);
}

}  // namespace
}  // namespace snapsync

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace snapsync;
  if (size == 0) return 0;
  static const std::vector<std::byte> good = GoodImage();
  const uint8_t flags = data[0];
  MemoryMetadata metadata(
      (flags & 1U) != 0 ? good : std::vector<std::byte>(good.size()));
  Patch(metadata, {data + 1, size - 1}, flags);
  for (const uint32_t base : {0U, 1U, 3U}) {
    for (const uint32_t id : {1U, 2U, 3U}) {
      Compare(metadata, (flags & 8U) != 0, base, id);
    }
  }
  return 0;
}
