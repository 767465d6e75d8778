// SPDX-License-Identifier: Apache-2.0
//
// Thin devices as the metadata describes them, and one view of a pool to look
// them up in.
#ifndef SNAPSYNC_COMMON_THIN_MAPPINGS_H_
#define SNAPSYNC_COMMON_THIN_MAPPINGS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/thin/btree.h"
#include "common/thin/format.h"
#include "common/thin/metadata_device.h"
#include "common/thin/pool_status.h"
#include "common/thin/superblock.h"

namespace snapsync {

// Where a virtual block's data lies, and the pool's time when it was mapped.
struct Mapping {
  uint64_t data_block = 0;
  uint32_t time = 0;

  static Mapping Unpack(uint64_t value) {
    return {value >> kTimeBits, static_cast<uint32_t>(value & kTimeMask)};
  }
  friend bool operator==(const Mapping&, const Mapping&) = default;
};

struct ThinDevice {
  uint32_t id = 0;
  uint64_t mapping_root = 0;  // metadata block
  uint64_t mapped_blocks = 0;
  uint64_t transaction_id = 0;  // the pool's when the device was made
  uint32_t creation_time = 0;
  uint32_t snapshotted_time = 0;

  friend bool operator==(const ThinDevice&, const ThinDevice&) = default;
};

// One state of a pool's metadata: a metadata snapshot, or metadata that nobody
// writes. Used by one thread at a time. The reader must outlive it.
class PoolView {
 public:
  // `held_root`: the metadata snapshot instead of the live superblock.
  static absl::StatusOr<PoolView> Open(MetadataReader& reader, bool held_root);
  // Of a live pool, without a metadata snapshot. Looking up a device then
  // answers kBusy when the pool's state on the disk has changed since: open
  // another view. Trees of snapshots that nobody writes and nobody deletes are
  // immutable, so with their roots at hand they can be read (docs/delta.md).
  static absl::StatusOr<PoolView> OpenUnheld(MetadataReader& reader);

  const Superblock& superblock() const { return superblock_; }
  // Of a live pool; nullopt for metadata at rest or in a file.
  const std::optional<PoolStatus>& status() const { return status_; }
  void set_status(PoolStatus status) { status_ = std::move(status); }
  const std::string& name() const { return nodes_->device(); }
  NodeReader& nodes() { return *nodes_; }
  uint64_t metadata_blocks_read() const {
    return superblocks_read_ + nodes_->blocks_read();
  }

  // nullopt when the pool has no such device. kIo when only one of the two
  // trees knows it.
  absl::StatusOr<std::optional<ThinDevice>> FindDevice(uint32_t id);
  // The same, but kUsage when there is none.
  absl::StatusOr<ThinDevice> RequireDevice(uint32_t id);

  // What FindDevice() has answered so far, by device id.
  const std::map<uint32_t, std::optional<ThinDevice>>& found() const {
    return found_;
  }

 private:
  PoolView() = default;

  absl::Status CheckUnchanged();

  MetadataReader* reader_ = nullptr;
  Superblock superblock_;
  std::vector<std::byte> unheld_superblock_;  // empty: the view can't change
  std::optional<PoolStatus> status_;
  uint64_t superblocks_read_ = 0;
  std::unique_ptr<NodeReader> nodes_;
  std::map<uint32_t, std::optional<ThinDevice>> found_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_THIN_MAPPINGS_H_
