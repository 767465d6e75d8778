// SPDX-License-Identifier: Apache-2.0
#include "common/thin/btree.h"

#include <algorithm>
#include <numeric>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/base/crc32c.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace snapsync {
namespace {

// The last entry of `node` whose key is not above `key`; nullopt when all are.
std::optional<uint32_t> LastNotAbove(const BtreeNode& node, uint64_t key) {
  uint32_t low = 0;
  uint32_t high = node.count();
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (node.key(middle) <= key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == 0) return std::nullopt;
  return low - 1;
}

std::string_view NameOf(NodeKind kind) {
  switch (kind) {
    case NodeKind::kInternal:
      return "1, an internal node: all leaves lie equally deep";
    case NodeKind::kLeaf:
      return "2, a leaf: all leaves lie equally deep";
    case NodeKind::kEither:
      break;
  }
  return "1 (internal) or 2 (leaf)";
}

}  // namespace

absl::Status NodeReader::Check(const NodeReference& reference,
                               std::span<const std::byte> bytes, NodeKind kind,
                               uint32_t value_size) const {
  const auto u32 = [&](size_t at) { return LoadLittle<uint32_t>(&bytes[at]); };
  const auto damaged = [&](std::string_view field, uint64_t found,
                           std::string_view expected) {
    return DamagedMetadata(device(), reference.block,
                           absl::StrCat("node ", std::string(field)),
                           absl::StrCat(found), expected);
  };
  const uint32_t checksum = ~Crc32c(bytes.subspan(kChecksumFrom)) ^ kNodeSalt;
  if (u32(kChecksumAt) != checksum) {
    return damaged("checksum", u32(kChecksumAt), absl::StrCat(checksum));
  }
  // A right checksum at the wrong place is what a torn read looks like.
  const auto own = LoadLittle<uint64_t>(&bytes[kBlockNumberAt]);
  if (own != reference.block) {
    return damaged("block number", own, absl::StrCat(reference.block));
  }
  const uint32_t flags = u32(kNodeFlagsAt);
  const bool leaf = flags == kNodeLeaf;
  if ((!leaf && flags != kNodeInternal) ||
      (leaf && kind == NodeKind::kInternal) ||
      (!leaf && kind == NodeKind::kLeaf)) {
    return damaged("flags", flags, NameOf(kind));
  }
  const uint32_t size = leaf ? value_size : kChildValueSize;
  if (u32(kNodeValueSizeAt) != size) {
    return damaged("value_size", u32(kNodeValueSizeAt), absl::StrCat(size));
  }
  const uint32_t fits = static_cast<uint32_t>(
      (kMetadataBlockSize - kNodeKeysAt) / (kKeySize + size));
  const uint32_t max_entries = u32(kNodeMaxEntriesAt);
  if (max_entries > fits) {
    return damaged("max_entries", max_entries, absl::StrCat("at most ", fits));
  }
  const uint32_t entries = u32(kNodeEntriesAt);
  if (entries > max_entries) {
    return damaged("nr_entries", entries,
                   absl::StrCat("at most max_entries, ", max_entries));
  }
  if (!leaf && entries == 0) {
    return damaged("nr_entries", 0, "at least 1 in an internal node");
  }
  const BtreeNode node(bytes, reference);
  uint64_t lowest = reference.first;
  for (uint32_t index = 0; index < entries; ++index) {
    const uint64_t key = node.key(index);
    if (key < lowest || key >= reference.end) {
      return damaged(
          absl::StrCat("key ", index), key,
          absl::StrCat("at least ", lowest, " and below ", reference.end,
                       ": keys ascend, within the range of the parent"));
    }
    lowest = key + 1;
    if (leaf) continue;
    const uint64_t child = node.value64(index);
    if (child == 0 || child >= block_limit_) {
      return damaged(absl::StrCat("child ", index), child,
                     absl::StrCat("1 to ", block_limit_ - 1));
    }
  }
  return absl::OkStatus();
}

absl::Status NodeReader::Read(std::span<const NodeReference> references,
                              NodeKind kind, uint32_t value_size,
                              std::vector<BtreeNode>* nodes) {
  std::vector<uint32_t> order(references.size());
  std::iota(order.begin(), order.end(), 0U);
  std::sort(order.begin(), order.end(), [&](uint32_t left, uint32_t right) {
    return references[left].block < references[right].block;
  });
  std::vector<uint64_t> blocks;
  blocks.reserve(order.size());
  for (const uint32_t index : order) blocks.push_back(references[index].block);
  const size_t size = blocks.size() * kMetadataBlockSize;
  if (buffer_.size() < size) buffer_ = AlignedBuffer(size);
  SNAPSYNC_RETURN_IF_ERROR(reader_.Read(blocks, buffer_.span().first(size)));
  blocks_read_ += blocks.size();
  nodes->assign(references.size(), BtreeNode());
  for (size_t place = 0; place < order.size(); ++place) {
    const NodeReference& reference = references[order[place]];
    const auto bytes =
        std::span<const std::byte>(buffer_.span())
            .subspan(place * kMetadataBlockSize, kMetadataBlockSize);
    SNAPSYNC_RETURN_IF_ERROR(Check(reference, bytes, kind, value_size));
    (*nodes)[order[place]] = BtreeNode(bytes, reference);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<std::vector<std::byte>>> NodeReader::Find(
    uint64_t root, uint64_t key, uint32_t value_size) {
  NodeReference reference{root, 0, kKeyEnd};
  for (int depth = 0; depth <= kTreeHeightMax; ++depth) {
    std::vector<BtreeNode> nodes;
    SNAPSYNC_RETURN_IF_ERROR(
        Read({&reference, 1}, NodeKind::kEither, value_size, &nodes));
    const BtreeNode& node = nodes.front();
    const std::optional<uint32_t> index = LastNotAbove(node, key);
    if (!index || (node.leaf() && node.key(*index) != key)) {
      return std::optional<std::vector<std::byte>>();
    }
    if (node.leaf()) {
      const auto value = node.value(*index);
      return std::optional<std::vector<std::byte>>(std::in_place, value.begin(),
                                                   value.end());
    }
    reference = node.child(*index);
  }
  return DamagedMetadata(device(), root, "tree height",
                         absl::StrCat("more than ", kTreeHeightMax),
                         "a leaf before");
}

absl::StatusOr<int> NodeReader::Height(uint64_t root, uint32_t value_size) {
  NodeReference reference{root, 0, kKeyEnd};
  for (int height = 0; height <= kTreeHeightMax; ++height) {
    std::vector<BtreeNode> nodes;
    SNAPSYNC_RETURN_IF_ERROR(
        Read({&reference, 1}, NodeKind::kEither, value_size, &nodes));
    if (nodes.front().leaf()) return height;
    reference = nodes.front().child(0);
  }
  return DamagedMetadata(device(), root, "tree height",
                         absl::StrCat("more than ", kTreeHeightMax),
                         "a leaf before");
}

}  // namespace snapsync
