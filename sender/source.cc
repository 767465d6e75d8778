// SPDX-License-Identifier: Apache-2.0
#include "sender/source.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "common/base/aligned_buffer.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "common/block/device_identity.h"
#include "common/block/file_device.h"
#include "common/block/file_holes.h"
#include "common/block/file_version.h"
#include "common/qcow2/confined_image.h"
#include "common/thin/metadata_snapshot.h"
#include "common/thin/pool_control.h"
#include "common/thin/saved_delta.h"

namespace snapsync {
namespace {

constexpr char kTag[] = "snapsync";
constexpr size_t kReadBytes = 8 * kMiB;

bool Exists(const std::string& path) {
  struct stat facts {};
  return ::stat(path.c_str(), &facts) == 0;
}

// Finds the LVM volume that `path` speaks of; none for anything else that
// exists.
absl::Status FindVolume(const std::string& path, SourceFacts& facts) {
  if (Exists(path)) {
    SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<DeviceNumber> number,
                              BlockDeviceNumber(path));
    if (!number) return absl::OkStatus();
    SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<ThinTarget> thin,
                              FindThin(*number));
    if (!thin || !ParseLvmUuid(thin->device.uuid)) return absl::OkStatus();
  }
  // An inactive snapshot has no node: LVM knows it by name.
  const absl::StatusOr<LogicalVolumeName> name = ParseVolumePath(path);
  if (!name.ok()) {
    return Error(Reason::kUsage, "--src " + path + " does not exist");
  }
  SNAPSYNC_ASSIGN_OR_RETURN(facts.group, ReadVolumeGroup(name->group));
  const LogicalVolume* volume = facts.group.FindName(name->name);
  if (volume == nullptr) {
    return Error(Reason::kUsage, "--src " + path + " does not exist");
  }
  facts.volume = *volume;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<qcow2::Image>> OpenImage(
    const std::string& path, const ImageSource& source) {
  qcow2::ImageOptions options;
  options.files.allow_anywhere = source.allow_anywhere;
  options.files.allow_data_file = source.allow_data_file;
  options.chain.allow_corrupt = source.allow_corrupt;
  options.chain.unrecorded_backing_format = source.backing_format;
  return qcow2::OpenConfinedImage(path, options);
}

// The beginning of a device.
class LimitedReader final : public BlockReader {
 public:
  LimitedReader(std::unique_ptr<BlockReader> reader, uint64_t size)
      : reader_(std::move(reader)), size_(size) {}

  const std::string& name() const override { return reader_->name(); }
  uint64_t size() const override { return size_; }
  absl::Status Read(std::span<const ReadOperation> operations) override {
    return reader_->Read(operations);
  }

 private:
  const std::unique_ptr<BlockReader> reader_;
  const uint64_t size_;
};

// Removes a snapshot that we made. OK when it is gone already.
absl::Status RemoveSnapshot(const SnapshotName& name,
                            const VolumeGroup& known) {
  VolumeGroup group = known;
  if (group.name != name.group || group.FindName(name.name) == nullptr) {
    SNAPSYNC_ASSIGN_OR_RETURN(group, ReadVolumeGroup(name.group));
  }
  const LogicalVolume* found = group.FindName(name.name);
  // Without our tag it is somebody's, whatever its name.
  if (found == nullptr || !found->HasTag(kTag)) return absl::OkStatus();
  return RemoveVolumes(group, {*found});
}

}  // namespace

absl::StatusOr<SourceFacts> ExamineSource(const SourceOptions& options) {
  SourceFacts facts;
  facts.place = PlaceOf(options.path);
  if (options.image) return facts;
  SNAPSYNC_RETURN_IF_ERROR(FindVolume(options.path, facts));
  if (facts.volume) facts.place = PlaceOf(facts.volume->device_path);
  facts.is_origin = facts.volume.has_value() &&
                    facts.volume->segment_type == "thin" &&
                    facts.volume->writable && facts.volume->origin.empty();
  return facts;
}

absl::Status CheckIsAnother(const SourceOptions& options,
                            const SourceFacts& source,
                            const VolumeState& target) {
  if (source.place.empty() || source.place != target.place) {
    return absl::OkStatus();
  }
  return Error(
      Reason::kUsage,
      "--src " + options.path + " is the target itself, volume " + target.name);
}

absl::Status MakeSnapshot(const SourceFacts& origin, const SnapshotName& name) {
  if (const LogicalVolume* found = origin.group.FindName(name.name)) {
    if (found->HasTag(kTag) && found->origin == origin.volume->name) {
      return absl::OkStatus();
    }
    return Error(Reason::kOther, found->FullName() +
                                     " is in the way: it is not a snapshot "
                                     "that was made for this sync");
  }
  SnapshotOptions options;
  options.read_only = true;
  options.activation_skip = true;
  options.active = true;
  options.tags = {kTag};
  return CreateThinSnapshot(origin.group, *origin.volume, name.name, options);
}

absl::Status RemoveUnneeded(const ReplicationStore& store,
                            ReplicationState& state, const VolumeGroup& known) {
  std::vector<SnapshotName> left;
  absl::Status failed;
  for (const SnapshotName& snapshot : state.unneeded) {
    if (absl::Status s = RemoveSnapshot(snapshot, known); !s.ok()) {
      failed = s;
      left.push_back(snapshot);
    }
  }
  if (left.size() == state.unneeded.size()) return failed;
  state.unneeded = std::move(left);
  SNAPSYNC_RETURN_IF_ERROR(store.Save(state));
  return failed;
}

absl::StatusOr<std::unique_ptr<SourceSnapshot>> SourceSnapshot::Open(
    const SourceOptions& options, const SnapshotName& name, bool deactivate) {
  std::unique_ptr<SourceSnapshot> snapshot(new SourceSnapshot());
  snapshot->path_ = options.path;
  snapshot->state_directory_ = options.state_directory;
  if (!name.group.empty()) {
    SNAPSYNC_ASSIGN_OR_RETURN(snapshot->group_, ReadVolumeGroup(name.group));
    const LogicalVolume* volume = snapshot->group_->FindName(name.name);
    if (volume == nullptr) {
      return Error(Reason::kIo,
                   "snapshot " + name.group + "/" + name.name + " is gone");
    }
    snapshot->volume_ = *volume;
    snapshot->path_ = volume->device_path;
    snapshot->identity_ = volume->uuid;
    snapshot->deactivate_ = deactivate || !volume->active;
    if (!volume->active) SNAPSYNC_RETURN_IF_ERROR(ActivateVolumes({*volume}));
  }
  if (options.image) {
    SNAPSYNC_ASSIGN_OR_RETURN(std::unique_ptr<qcow2::Image> image,
                              OpenImage(options.path, *options.image));
    snapshot->image_ = image.get();
    snapshot->SetFileIdentity(image->FileVersions());
    snapshot->reader_ = std::move(image);
    return snapshot;
  }
  const std::string version = FileVersion(snapshot->path_);
  SNAPSYNC_ASSIGN_OR_RETURN(
      snapshot->reader_, OpenFileReader(snapshot->path_, {.from_cache = true}));
  if (options.size && *options.size < snapshot->reader_->size()) {
    snapshot->reader_ = std::make_unique<LimitedReader>(
        std::move(snapshot->reader_), *options.size);
  }
  SNAPSYNC_RETURN_IF_ERROR(snapshot->FindMetadata(options));
  if (snapshot->identity_.empty()) snapshot->SetFileIdentity(version);
  return snapshot;
}

void SourceSnapshot::SetFileIdentity(const std::string& version) {
  has_version_ = !version.empty();
  identity_ = has_version_ ? path_ + " " + version : path_;
}

SourceSnapshot::~SourceSnapshot() {
  reader_.reset();
  if (!deactivate_) return;
  if (absl::Status s = DeactivateVolumes({*volume_}); !s.ok()) {
    Log(Severity::kWarning, std::string(MessageOf(s)));
  }
}

absl::Status SourceSnapshot::FindMetadata(const SourceOptions& options) {
  SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<DeviceNumber> number,
                            BlockDeviceNumber(path_));
  std::optional<ThinTarget> thin;
  if (number) {
    SNAPSYNC_ASSIGN_OR_RETURN(thin, FindThin(*number));
  }
  if (!thin) {
    if (options.meta.has_value() != options.id.has_value()) {
      return Error(Reason::kUsage,
                   "--src " + path_ +
                       " is not a thin device: give both --meta and --id, or "
                       "neither");
    }
    if (options.meta) {
      metadata_ = *options.meta;
      thin_id_ = options.id;
    }
    return absl::OkStatus();
  }
  SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<PoolTarget> pool,
                            FindPool(thin->pool));
  if (!pool) {
    return Error(Reason::kIo, path_ + ": its pool can't be found");
  }
  // A snapshot that the sender made of the --src origin has another id.
  const bool ids_speak_of_this =
      volume_ == std::nullopt || !volume_->HasTag(kTag);
  if (options.id && ids_speak_of_this && *options.id != thin->thin_id) {
    return Error(Reason::kUsage, "--id " + std::to_string(*options.id) +
                                     ", but " + path_ + " has thin id " +
                                     std::to_string(thin->thin_id));
  }
  if (options.meta) {
    SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<DeviceNumber> given,
                              BlockDeviceNumber(*options.meta));
    if (!given || *given != pool->metadata) {
      return Error(Reason::kUsage,
                   "--meta " + *options.meta +
                       " is not the metadata device of the pool of " + path_ +
                       ", which is " + pool->metadata.Path());
    }
  }
  metadata_ = pool->metadata.Path();
  thin_id_ = thin->thin_id;
  external_origin_ = thin->external_origin.has_value();
  if (identity_.empty()) identity_ = thin->device.uuid;
  return absl::OkStatus();
}

absl::StatusOr<ExtentList> SourceSnapshot::DataExtents() {
  return image_ != nullptr ? image_->DataExtents()
                           : FindFileData(path_, reader_->size());
}

absl::Status SourceSnapshot::ReadThrough(
    const ExtentList& extents, const std::function<bool()>& interrupted) const {
  AlignedBuffer buffer(kReadBytes);
  for (const Extent& extent : extents.extents()) {
    for (uint64_t at = extent.offset; at < extent.end(); at += buffer.size()) {
      if (interrupted()) return Error(Reason::kConnection, "interrupted");
      const ReadOperation read{
          at, buffer.span().first(
                  std::min(buffer.size(), size_t{extent.end() - at}))};
      SNAPSYNC_RETURN_IF_ERROR(reader_->Read({&read, 1}));
    }
  }
  return absl::OkStatus();
}

DeltaRequest SourceSnapshot::RequestFrom(
    const std::optional<BaseRecord>& base) const {
  DeltaRequest request;
  request.snapshot_id = *thin_id_;
  request.snapshot_size = reader_->size();
  request.base = base;
  request.facts.snapshot_external_origin = external_origin_;
  if (volume_) {
    request.facts.vg_uuid = volume_->group_uuid;
    request.facts.pool_uuid = volume_->pool_uuid;
    request.facts.snapshot_lv_uuid = volume_->uuid;
    if (base) {
      const LogicalVolume* holder =
          group_->FindThinId(volume_->pool_uuid, base->device_id);
      if (holder != nullptr) request.facts.base_lv_uuid = holder->uuid;
    }
  }
  return request;
}

MetadataSource SourceSnapshot::metadata() const {
  MetadataSource metadata;
  metadata.path = metadata_;
  metadata.state_directory = state_directory_;
  return metadata;
}

absl::StatusOr<GuardedDelta> SourceSnapshot::DeltaFrom(
    const std::optional<BaseRecord>& base) const {
  const DeltaRequest request = RequestFrom(base);
  GuardedDelta delta;
  SNAPSYNC_RETURN_IF_ERROR(
      WithPoolView(metadata(), [&](PoolView& view) -> absl::Status {
        SNAPSYNC_ASSIGN_OR_RETURN(delta, ComputeDelta(view, request));
        return absl::OkStatus();
      }));
  return delta;
}

absl::StatusOr<GuardedDelta> SourceSnapshot::DeltaFromSaved(
    const BaseState& base, const std::string& mappings) const {
  if (!volume_) {
    return GuardRefusal(Guard::kProvenTimeline,
                        path_ +
                            " is no volume of LVM, so nothing proves that "
                            "its pool was not set back");
  }
  const DeltaRequest request = RequestFrom(base.record);
  // The base itself, if it is there still (but was written to), tells as much.
  std::vector<WitnessLookup> witnesses = {
      {base.saved->witness, ""},
      {{base.record.lv_uuid, base.record.device_id, base.record.transaction_id,
        base.record.creation_time},
       ""}};
  for (WitnessLookup& witness : witnesses) {
    const LogicalVolume* holder =
        group_->FindThinId(volume_->pool_uuid, witness.record.device_id);
    if (holder != nullptr) witness.lv_uuid = holder->uuid;
  }
  GuardedDelta delta;
  SNAPSYNC_RETURN_IF_ERROR(
      WithPoolView(metadata(), [&](PoolView& view) -> absl::Status {
        SNAPSYNC_ASSIGN_OR_RETURN(
            delta, ComputeSavedDelta(view, request, mappings,
                                     {base.saved->mappings, base.generation},
                                     witnesses));
        return absl::OkStatus();
      }));
  return delta;
}

std::vector<HeldGeneration> SourceSnapshot::HeldGenerations() const {
  if (!volume_ || !group_) return {};
  return FindHeldGenerations(*group_, volume_->pool_uuid);
}

bool SourceSnapshot::HoldsYounger(const Id128& generation) const {
  bool younger = false;
  for (const HeldGeneration& held : HeldGenerations()) {
    if (held.generation == generation) return younger;
    const LogicalVolume& snapshot = held.snapshot;
    younger |= !volume_->origin.empty() && snapshot.uuid != volume_->uuid &&
               (snapshot.origin == volume_->origin ||
                snapshot.name.starts_with(volume_->origin + ".g"));
  }
  return false;
}

BaseRecord SourceSnapshot::RecordOfHeld(const HeldGeneration& held) const {
  const LogicalVolume* pool = group_->FindUuid(volume_->pool_uuid);
  return RecordOf(held, pool == nullptr ? 0 : pool->chunk_size);
}

absl::Status SourceSnapshot::Mark(const Id128& generation,
                                  const BaseRecord& record) const {
  if (!volume_) return absl::OkStatus();
  const std::string tag = GenerationTag(
      generation,
      record.mapped_blocks * record.data_block_sectors * kSectorBytes,
      record.device_size);
  if (volume_->HasTag(tag)) return absl::OkStatus();
  return AddTag(*volume_, tag);
}

}  // namespace snapsync
