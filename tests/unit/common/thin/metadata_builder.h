// SPDX-License-Identifier: Apache-2.0
//
// Makes thin metadata out of plain maps. Equal subtrees become one block, as
// copy on write would leave them, and small nodes make tall trees of few
// entries.
#ifndef SNAPSYNC_TESTS_UNIT_COMMON_THIN_METADATA_BUILDER_H_
#define SNAPSYNC_TESTS_UNIT_COMMON_THIN_METADATA_BUILDER_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "common/thin/mappings.h"

namespace snapsync {

using MappingMap = std::map<uint64_t, Mapping>;

struct DeviceContents {
  MappingMap mappings;
  uint64_t transaction_id = 0;
  uint32_t creation_time = 0;
  uint32_t snapshotted_time = 0;
};

class MetadataBuilder {
 public:
  // A leaf holds the keys of one range of `leaf_span`; an internal node up to
  // `fanout` children.
  MetadataBuilder(uint64_t leaf_span, uint64_t fanout)
      : leaf_span_(leaf_span), fanout_(fanout) {}

  // The root of a tree of `contents`. Equal subtrees share their blocks.
  uint64_t AddTree(const MappingMap& contents);

  // The image of a pool with these devices.
  std::vector<std::byte> Finish(const std::map<uint32_t, DeviceContents>& pool,
                                uint32_t time, uint32_t data_block_sectors);

  // A block, sealed, with these entries; its number.
  uint64_t AddNode(bool leaf, const std::vector<uint64_t>& keys,
                   const std::vector<std::vector<std::byte>>& values);

  // The image so far; block 0 is the superblock's place.
  std::vector<std::byte>& image() { return image_; }

 private:
  const uint64_t leaf_span_;
  const uint64_t fanout_;
  std::vector<std::byte> image_ = std::vector<std::byte>(kMetadataBlockSize);
  std::map<std::vector<std::byte>, uint64_t> known_;  // contents to block
};

}  // namespace snapsync

#endif  // SNAPSYNC_TESTS_UNIT_COMMON_THIN_METADATA_BUILDER_H_
