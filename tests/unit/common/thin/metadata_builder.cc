// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/common/thin/metadata_builder.h"

#include "common/base/endian.h"
#include "common/thin/format.h"
#include "tests/unit/common/thin/memory_metadata.h"

namespace snapsync {
namespace {

std::vector<std::byte> Bytes(uint64_t value) {
  std::vector<std::byte> bytes(sizeof value);
  StoreLittle(bytes.data(), value);
  return bytes;
}

std::vector<std::byte> Sealed(std::vector<std::byte> bytes, uint32_t salt) {
  MemoryMetadata block(std::move(bytes));
  block.Seal(0, salt);
  return std::move(block.image());
}

}  // namespace

uint64_t MetadataBuilder::AddNode(
    bool leaf, const std::vector<uint64_t>& keys,
    const std::vector<std::vector<std::byte>>& values) {
  const size_t value_size = values.empty() ? 8 : values.front().size();
  const size_t room =
      (kMetadataBlockSize - kNodeKeysAt) / (kKeySize + value_size) / 3 * 3;
  std::vector<std::byte> bytes(kMetadataBlockSize);
  StoreLittle<uint32_t>(&bytes[kNodeFlagsAt], leaf ? kNodeLeaf : kNodeInternal);
  StoreLittle(&bytes[kNodeEntriesAt], static_cast<uint32_t>(keys.size()));
  StoreLittle(&bytes[kNodeMaxEntriesAt], static_cast<uint32_t>(room));
  StoreLittle(&bytes[kNodeValueSizeAt], static_cast<uint32_t>(value_size));
  for (size_t index = 0; index < keys.size(); ++index) {
    StoreLittle(&bytes[kNodeKeysAt + index * kKeySize], keys[index]);
    std::copy(values[index].begin(), values[index].end(),
              bytes.begin() +
                  static_cast<std::ptrdiff_t>(kNodeKeysAt + room * kKeySize +
                                              index * value_size));
  }
  const uint64_t number = image_.size() / kMetadataBlockSize;
  const auto [known, added] = known_.emplace(bytes, number);
  if (!added) return known->second;
  StoreLittle(&bytes[kBlockNumberAt], number);
  bytes = Sealed(std::move(bytes), kNodeSalt);
  image_.insert(image_.end(), bytes.begin(), bytes.end());
  return number;
}

uint64_t MetadataBuilder::AddTree(const MappingMap& contents) {
  std::map<uint64_t, uint64_t> level;  // first key to block
  for (auto from = contents.begin(); from != contents.end();) {
    std::vector<uint64_t> keys;
    std::vector<std::vector<std::byte>> values;
    const uint64_t range = from->first / leaf_span_;
    for (; from != contents.end() && from->first / leaf_span_ == range;
         ++from) {
      keys.push_back(from->first);
      values.push_back(
          Bytes(from->second.data_block << kTimeBits | from->second.time));
    }
    level[keys.front()] = AddNode(true, keys, values);
  }
  if (level.empty()) return AddNode(true, {}, {});
  for (uint64_t span = leaf_span_ * fanout_; level.size() > 1;
       span *= fanout_) {
    std::map<uint64_t, uint64_t> above;
    for (auto from = level.begin(); from != level.end();) {
      std::vector<uint64_t> keys;
      std::vector<std::vector<std::byte>> values;
      const uint64_t range = from->first / span;
      for (; from != level.end() && from->first / span == range; ++from) {
        keys.push_back(from->first);
        values.push_back(Bytes(from->second));
      }
      above[keys.front()] = AddNode(false, keys, values);
    }
    level = std::move(above);
  }
  return level.begin()->second;
}

std::vector<std::byte> MetadataBuilder::Finish(
    const std::map<uint32_t, DeviceContents>& pool, uint32_t time,
    uint32_t data_block_sectors) {
  std::vector<uint64_t> ids;
  std::vector<std::vector<std::byte>> roots;
  std::vector<std::vector<std::byte>> details;
  for (const auto& [id, device] : pool) {
    ids.push_back(id);
    roots.push_back(Bytes(AddTree(device.mappings)));
    std::vector<std::byte> value(kDetailsValueSize);
    StoreLittle<uint64_t>(&value[kDetailsMappedBlocksAt],
                          device.mappings.size());
    StoreLittle(&value[kDetailsTransactionAt], device.transaction_id);
    StoreLittle(&value[kDetailsCreationTimeAt], device.creation_time);
    StoreLittle(&value[kDetailsSnapshottedTimeAt], device.snapshotted_time);
    details.push_back(value);
  }
  const uint64_t mapping_root = AddNode(true, ids, roots);
  const uint64_t details_root = AddNode(true, ids, details);
  std::vector<std::byte> bytes(kMetadataBlockSize);
  StoreLittle(&bytes[kSuperblockMagicAt], kSuperblockMagic);
  StoreLittle(&bytes[kSuperblockVersionAt], kSuperblockVersion);
  StoreLittle(&bytes[kSuperblockTimeAt], time);
  StoreLittle<uint64_t>(&bytes[kDataSpaceMapBlocksAt], uint64_t{1} << 32);
  StoreLittle<uint64_t>(&bytes[kMetadataSpaceMapBlocksAt],
                        image_.size() / kMetadataBlockSize);
  StoreLittle(&bytes[kDataMappingRootAt], mapping_root);
  StoreLittle(&bytes[kDeviceDetailsRootAt], details_root);
  StoreLittle(&bytes[kDataBlockSizeAt], data_block_sectors);
  StoreLittle<uint32_t>(&bytes[kMetadataBlockSizeAt], 8);
  bytes = Sealed(std::move(bytes), kSuperblockSalt);
  std::copy(bytes.begin(), bytes.end(), image_.begin());
  return image_;
}

}  // namespace snapsync
