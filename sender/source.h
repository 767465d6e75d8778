// SPDX-License-Identifier: Apache-2.0
//
// What --src names, and how to read it: a snapshot of a thin volume, or an
// origin of which the sender makes one; with LVM, with bare device-mapper, or
// as a file with a metadata file beside it; or a thick device.
//
// Used by one thread at a time. Errors: kUsage for what contradicts itself,
// kIo and kTargetUnsuitable with the device.
#ifndef SNAPSYNC_SENDER_SOURCE_H_
#define SNAPSYNC_SENDER_SOURCE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/block/block_device.h"
#include "common/generations/held_generations.h"
#include "common/lvm/lvm.h"
#include "common/qcow2/image.h"
#include "common/thin/guarded_delta.h"
#include "common/thin/metadata_snapshot.h"
#include "common/transfer/session_protocol.h"
#include "sender/replication_state.h"

namespace snapsync {

// A QCOW2 image as the source, and what it may name (common/qcow2).
struct ImageSource {
  bool allow_anywhere = false;
  bool allow_data_file = false;
  bool allow_corrupt = false;
  std::string backing_format;  // of backing files without a recorded one
};

struct SourceOptions {
  std::string path;                 // --src
  std::optional<std::string> meta;  // --meta
  std::optional<uint32_t> id;       // --id
  std::string state_directory;
  // Only so many bytes of it are meant; nullopt: all.
  std::optional<uint64_t> size;
  // It is an image, which is never guessed.
  std::optional<ImageSource> image;
};

// What --src turned out to be; nothing was changed yet.
struct SourceFacts {
  // A volume of LVM, and all of its group.
  std::optional<LogicalVolume> volume;
  VolumeGroup group;
  // It is written to: a snapshot has to be made.
  bool is_origin = false;
  std::string place;  // PlaceOf() it; empty: an inactive volume
};

absl::StatusOr<SourceFacts> ExamineSource(const SourceOptions& options);

// kUsage when the source is the target itself.
absl::Status CheckIsAnother(const SourceOptions& options,
                            const SourceFacts& source,
                            const VolumeState& target);

// Makes the snapshot that `name` says, of `origin`, a volume of LVM that was
// examined just now, if it was not there from an earlier run. Active, though it
// will skip activation.
absl::Status MakeSnapshot(const SourceFacts& origin, const SnapshotName& name);

// Removes the snapshots that are not needed any more, by the state that is
// stored, and has it forget them. Only those that we made, by their tag. What
// can't be removed is tried again by the next call. `known`: what the group of
// the source was at some time, which may be empty.
absl::Status RemoveUnneeded(const ReplicationStore& store,
                            ReplicationState& state, const VolumeGroup& known);

// A snapshot that can be read. Destroyed, it is closed, and deactivated again
// if it was activated for this.
class SourceSnapshot {
 public:
  // `name` of the snapshot in LVM; empty for what --src names itself.
  // `deactivate`: also where it is active already, as MakeSnapshot() makes it.
  static absl::StatusOr<std::unique_ptr<SourceSnapshot>> Open(
      const SourceOptions& options, const SnapshotName& name,
      bool deactivate = false);
  ~SourceSnapshot();
  SourceSnapshot(const SourceSnapshot&) = delete;
  SourceSnapshot& operator=(const SourceSnapshot&) = delete;

  BlockReader& reader() { return *reader_; }
  const std::string& path() const { return path_; }
  // Which snapshot this is, whatever its name: never the same for two. Of a
  // file or an image also which version of it, as far as that is known.
  const std::string& identity() const { return identity_; }
  // What may hold data, where thin metadata don't tell: what an image says, or
  // a file's holes leave; else all of it.
  absl::StatusOr<ExtentList> DataExtents();
  // Nobody keeps the contents as they are: neither a snapshot nor an image.
  bool is_thick() const { return image_ == nullptr && !has_metadata(); }
  // The same identity() means the same contents: what an interrupted sync sent
  // still holds. Not so for a thick device.
  bool keeps_contents() const { return has_metadata() || has_version_; }
  // Reads all of `extents`, to see that it can be read.
  absl::Status ReadThrough(const ExtentList& extents,
                           const std::function<bool()>& interrupted) const;
  // Metadata of a thin pool can be had.
  bool has_metadata() const { return thin_id_.has_value(); }

  // The delta from `base` (nullopt: all that is mapped) to this snapshot, under
  // all guards. Requires has_metadata().
  absl::StatusOr<GuardedDelta> DeltaFrom(
      const std::optional<BaseRecord>& base) const;

  // The same from a base whose snapshot may be gone, by its mappings, which are
  // in the file at `mappings`. Requires base.saved.
  absl::StatusOr<GuardedDelta> DeltaFromSaved(
      const BaseState& base, const std::string& mappings) const;

  // A volume of LVM; nullopt: none.
  const std::optional<LogicalVolume>& volume() const { return volume_; }
  // Where its metadata are. Requires has_metadata().
  MetadataSource metadata() const;

  // The generations of which this pool has snapshots, the youngest first. None
  // without LVM.
  std::vector<HeldGeneration> HeldGenerations() const;
  // This snapshot is `volume`.
  bool Is(const LogicalVolume& volume) const {
    return volume_ && volume_->uuid == volume.uuid;
  }
  // That of `generation` is there, and one of this volume's that is younger:
  // the volume was brought back since, and has less in common with the older
  // one.
  bool HoldsYounger(const Id128& generation) const;
  // The record of one of them.
  BaseRecord RecordOfHeld(const HeldGeneration& held) const;

  // Has the snapshot say that it holds `generation`; `record` is what
  // DeltaFrom() told of it. Nothing without LVM.
  absl::Status Mark(const Id128& generation, const BaseRecord& record) const;

 private:
  SourceSnapshot() = default;
  void SetFileIdentity(const std::string& version);
  absl::Status FindMetadata(const SourceOptions& options);
  DeltaRequest RequestFrom(const std::optional<BaseRecord>& base) const;

  std::string path_;
  std::string identity_;
  bool has_version_ = false;
  std::string state_directory_;
  std::optional<LogicalVolume> volume_;
  std::optional<VolumeGroup> group_;
  bool deactivate_ = false;
  bool external_origin_ = false;
  std::unique_ptr<BlockReader> reader_;
  qcow2::Image* image_ = nullptr;  // reader_, if it is one
  std::string metadata_;
  std::optional<uint32_t> thin_id_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_SOURCE_H_
