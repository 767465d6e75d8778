// SPDX-License-Identifier: Apache-2.0
//
// Nodes of the btrees that thin metadata is made of, each checked before
// anything in it is used: checksum, own block number, kind, counts and sizes,
// order of keys, the range of keys that the parent allows, bounds of child
// pointers. Damage is an error (kIo) that names device, block and field.
//
// Used by one thread at a time.
#ifndef SNAPSYNC_COMMON_THIN_BTREE_H_
#define SNAPSYNC_COMMON_THIN_BTREE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/aligned_buffer.h"
#include "common/base/endian.h"
#include "common/thin/format.h"
#include "common/thin/metadata_device.h"

namespace snapsync {

// No key reaches this: device ids have 24 bits, virtual blocks fewer than 56.
inline constexpr uint64_t kKeyEnd = UINT64_MAX;

// A node before it is read: where it lies and which keys it may hold,
// [first, end), as its parent says.
struct NodeReference {
  uint64_t block = 0;
  uint64_t first = 0;
  uint64_t end = kKeyEnd;
};

enum class NodeKind { kInternal, kLeaf, kEither };

// A checked node. A view: `bytes` must outlive it.
class BtreeNode {
 public:
  BtreeNode() = default;
  BtreeNode(std::span<const std::byte> bytes, const NodeReference& reference)
      : leaf_(LoadLittle<uint32_t>(&bytes[kNodeFlagsAt]) == kNodeLeaf),
        count_(LoadLittle<uint32_t>(&bytes[kNodeEntriesAt])),
        value_size_(LoadLittle<uint32_t>(&bytes[kNodeValueSizeAt])),
        end_(reference.end),
        keys_(&bytes[kNodeKeysAt]),
        values_(keys_ +
                LoadLittle<uint32_t>(&bytes[kNodeMaxEntriesAt]) * kKeySize) {}

  bool leaf() const { return leaf_; }
  uint32_t count() const { return count_; }
  uint64_t key(uint32_t index) const {
    return LoadLittle<uint64_t>(keys_ + index * kKeySize);
  }
  std::span<const std::byte> value(uint32_t index) const {
    return {values_ + index * size_t{value_size_}, value_size_};
  }
  // Requires values of 8 bytes.
  uint64_t value64(uint32_t index) const {
    return LoadLittle<uint64_t>(values_ + index * sizeof(uint64_t));
  }
  // Requires an internal node.
  NodeReference child(uint32_t index) const {
    return {value64(index), key(index),
            index + 1 < count_ ? key(index + 1) : end_};
  }

 private:
  bool leaf_ = false;
  uint32_t count_ = 0;
  uint32_t value_size_ = 0;
  uint64_t end_ = 0;
  const std::byte* keys_ = nullptr;
  const std::byte* values_ = nullptr;
};

// Reads and checks nodes of one metadata device.
class NodeReader {
 public:
  // `block_limit`: the metadata blocks of the live superblock; child pointers
  // at or above it are damage. `reader` must outlive this.
  NodeReader(MetadataReader& reader, uint64_t block_limit)
      : reader_(reader), block_limit_(block_limit) {}

  // Reads the nodes of `references`, in as few calls as their places allow.
  // (*nodes)[i] is that of references[i], valid until the next call.
  // `value_size` is that of the tree's leaves.
  absl::Status Read(std::span<const NodeReference> references, NodeKind kind,
                    uint32_t value_size, std::vector<BtreeNode>* nodes);

  // The value of `key` in the tree at `root`, if it has one.
  absl::StatusOr<std::optional<std::vector<std::byte>>> Find(
      uint64_t root, uint64_t key, uint32_t value_size);

  // 0 when the root is a leaf.
  absl::StatusOr<int> Height(uint64_t root, uint32_t value_size);

  const std::string& device() const { return reader_.name(); }
  uint64_t block_limit() const { return block_limit_; }
  // Blocks read so far.
  uint64_t blocks_read() const { return blocks_read_; }

 private:
  absl::Status Check(const NodeReference& reference,
                     std::span<const std::byte> bytes, NodeKind kind,
                     uint32_t value_size) const;

  MetadataReader& reader_;
  const uint64_t block_limit_;
  uint64_t blocks_read_ = 0;
  AlignedBuffer buffer_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_THIN_BTREE_H_
