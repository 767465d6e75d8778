// SPDX-License-Identifier: Apache-2.0
//
// A consistent view of a pool's metadata, however it can be had:
//  - metadata of a live pool through a metadata snapshot, which is taken,
//    read and released again;
//  - where somebody else holds the one metadata snapshot that a pool can have,
//    or the pool can't give one, by reading the roots twice: trees of snapshots
//    that nobody writes and nobody deletes are immutable (docs/delta.md);
//  - a metadata device at rest, or a file, as it is.
//
// A metadata snapshot that a crash of ours left behind, or that the kernel
// could not release, is recognised by the note that was written before it was
// taken, and released. Nobody else's is touched.
#ifndef SNAPSYNC_COMMON_THIN_METADATA_SNAPSHOT_H_
#define SNAPSYNC_COMMON_THIN_METADATA_SNAPSHOT_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/thin/mappings.h"
#include "common/thin/pool_control.h"

namespace snapsync {

struct MetadataSource {
  std::string path;  // the metadata device (VG-POOL_tmeta), or a file
  // Read the metadata snapshot that it holds already, not the live state; of a
  // live pool it is then neither taken nor released.
  bool held_root = false;
  // Where the note on a metadata snapshot is kept; made when it is missing.
  std::string state_directory;
};

// Runs `read` on a consistent view of the metadata of `source`; the metadata
// snapshot lives as long as that. When the state changed under the reading, or
// damage was met once, `read` is run again from the start on a new view, so it
// must not keep anything of a failed run. Errors of `read` are returned.
absl::Status WithPoolView(const MetadataSource& source,
                          const std::function<absl::Status(PoolView&)>& read);

// A metadata snapshot of a live pool; released at destruction. Used by one
// thread at a time.
class MetadataSnapshot {
 public:
  // kBusy when there is one that is not a left-over of ours.
  static absl::StatusOr<std::unique_ptr<MetadataSnapshot>> Take(
      const PoolTarget& pool, const std::string& state_directory);
  ~MetadataSnapshot();
  MetadataSnapshot(const MetadataSnapshot&) = delete;
  MetadataSnapshot& operator=(const MetadataSnapshot&) = delete;

  // Metadata block of its superblock.
  uint64_t held_root() const { return held_root_; }
  // kTargetUnsuitable: the kernel can't write the pool's metadata; the note
  // stays. The destructor does the same, but can't tell.
  absl::Status Release();

 private:
  class Note;
  MetadataSnapshot(PoolTarget pool, std::unique_ptr<Note> note,
                   uint64_t held_root);

  const PoolTarget pool_;
  const std::unique_ptr<Note> note_;
  uint64_t held_root_;
  bool taken_ = true;
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_THIN_METADATA_SNAPSHOT_H_
