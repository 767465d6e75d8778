// SPDX-License-Identifier: Apache-2.0
//
// A thin logical volume, written through a stage: a thin snapshot NAME.stage of
// it. The commit is LVM's merge of the stage into the volume: one LVM commit
// after which the volume has the stage's thin id. So the thin id of the volume
// is what says, after any crash, whether the commit has happened; no file does.
//
// The volume and the stage are inactive during the merge. LVM would put the
// merge off if somebody opened the volume in that moment; a device that is not
// there can't be opened, and somebody who was faster makes the deactivation
// fail, which changes nothing.
//
// Volumes of ours carry the tag "snapsync": only such a stage or generation is
// ever removed.
#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "agent/targets/named_values.h"
#include "agent/targets/pool_space.h"
#include "agent/targets/target.h"
#include "agent/targets/thin_seal.h"
#include "agent/targets/thin_volume.h"
#include "common/base/atomic_file.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/block/device_identity.h"
#include "common/block/file_device.h"
#include "common/generations/held_generations.h"
#include "common/lvm/lvm.h"
#include "common/lvm/physical_volumes.h"

namespace snapsync {
namespace {

constexpr char kTag[] = "snapsync";
constexpr char kThinStage[] = "thin-stage";

std::string StageName(const LogicalVolume& volume) {
  return volume.name + ".stage";
}

std::string GenerationName(const LogicalVolume& volume, uint64_t number) {
  return volume.name + ".g" + std::to_string(number);
}

// 7 for "NAME.g7".
std::optional<uint64_t> GenerationNumber(const LogicalVolume& volume,
                                         const std::string& name) {
  const std::string prefix = volume.name + ".g";
  uint64_t number = 0;
  if (!name.starts_with(prefix) ||
      !absl::SimpleAtoi(name.substr(prefix.size()), &number) ||
      name != GenerationName(volume, number)) {
    return std::nullopt;
  }
  return number;
}

// What a token says.
struct Stage {
  std::string volume_uuid;
  uint64_t volume_thin_id = 0;  // before the commit
  std::string uuid;
  uint64_t thin_id = 0;  // the volume's after the commit
  uint64_t size = 0;     // of what it is for, bytes: at most the volume's

  static absl::StatusOr<Stage> Parse(const std::string& token) {
    SNAPSYNC_ASSIGN_OR_RETURN(const NamedValues values,
                              NamedValues::Parse(kThinStage, token));
    return Stage{values.Text("volume"), values.Number("volume-id"),
                 values.Text("stage"), values.Number("stage-id"),
                 values.Number("size")};
  }

  std::string ToString() const {
    return NamedValues(kThinStage)
        .Set("volume", volume_uuid)
        .Set("volume-id", volume_thin_id)
        .Set("stage", uuid)
        .Set("stage-id", thin_id)
        .Set("size", size)
        .ToString();
  }
};

class LvmThinTarget final : public Target {
 public:
  LvmThinTarget(std::string path, std::string state_directory)
      : path_(std::move(path)), state_directory_(std::move(state_directory)) {}

  bool in_place() const override { return false; }

  absl::StatusOr<TargetFacts> Inspect() override {
    SNAPSYNC_ASSIGN_OR_RETURN(const ThinVolume target, Find());
    seen_ = {Call::kInspect, target};
    const LogicalVolume& volume = target.volume;
    for (const LogicalVolume& other : target.group.volumes) {
      if (other.merging && other.origin == volume.name) {
        return Error(Reason::kBusy,
                     volume.FullName() + ": " + other.name +
                         " is to be merged into it, which waits for it to be "
                         "free; `lvchange --refresh` then does it");
      }
    }
    SNAPSYNC_RETURN_IF_ERROR(MakeActive(volume));
    SNAPSYNC_ASSIGN_OR_RETURN(const PoolSpace space, SpaceFor(volume));
    SNAPSYNC_RETURN_IF_ERROR(space.CheckUsable());
    SNAPSYNC_RETURN_IF_ERROR(CheckNotOpen(volume));
    TargetFacts facts;
    facts.identity = "dm:" + volume.DeviceMapperUuid();
    facts.place = PlaceOf(volume.device_path);
    facts.size = volume.size;
    SNAPSYNC_ASSIGN_OR_RETURN(const uint64_t mapped, MappedBytes(volume));
    facts.blank = mapped == 0;
    facts.allocation_unit = target.pool.chunk_size;
    return facts;
  }

  absl::Status CheckRoom(uint64_t new_bytes) override {
    SNAPSYNC_ASSIGN_OR_RETURN(const ThinVolume target,
                              AsSeenBy(Call::kInspect));
    SNAPSYNC_ASSIGN_OR_RETURN(const PoolSpace space, SpaceFor(target.volume));
    SNAPSYNC_ASSIGN_OR_RETURN(const uint64_t mapped,
                              MappedBytes(target.volume));
    return space.CheckRoom(new_bytes, mapped);
  }

  absl::Status CheckSeal(const std::string& seal) override {
    SNAPSYNC_ASSIGN_OR_RETURN(const ThinVolume target,
                              AsSeenBy(Call::kInspect));
    return CheckThinSeal(target, seal, state_directory_);
  }

  absl::StatusOr<std::unique_ptr<BlockReader>> OpenReader() override {
    SNAPSYNC_ASSIGN_OR_RETURN(const ThinVolume target, Find());
    SNAPSYNC_RETURN_IF_ERROR(MakeActive(target.volume));
    SNAPSYNC_RETURN_IF_ERROR(CheckNotOpen(target.volume));
    return OpenFileReader(target.volume.device_path);
  }

  absl::StatusOr<std::string> CreateStage(uint64_t size,
                                          bool /*from_base*/) override {
    SNAPSYNC_ASSIGN_OR_RETURN(ThinVolume target, AsSeenBy(Call::kInspect));
    if (size > target.volume.size) {
      return Error(Reason::kTargetUnsuitable,
                   target.volume.FullName() + " has " +
                       std::to_string(target.volume.size) +
                       " bytes, the source " + std::to_string(size) +
                       "; enlarge it (lvextend)");
    }
    const std::string name = StageName(target.volume);
    SNAPSYNC_RETURN_IF_ERROR(RemoveOurs(target, target.group.FindName(name)));
    SNAPSYNC_RETURN_IF_ERROR(CreateThinSnapshot(target.group, target.volume,
                                                name, {.tags = {kTag}}));
    SNAPSYNC_ASSIGN_OR_RETURN(std::optional<LogicalVolume> stage,
                              FindActiveSnapshot(target.volume, name));
    if (stage.has_value()) {
      stage->tags = {kTag};
      target.group.volumes.push_back(*stage);
    } else {
      SNAPSYNC_ASSIGN_OR_RETURN(target, Find());
      const LogicalVolume* found = target.group.FindName(name);
      if (found == nullptr || !found->thin_id.has_value()) {
        return Error(Reason::kIo,
                     target.volume.FullName() + ": LVM made no stage " + name);
      }
      stage = *found;
    }
    seen_ = {Call::kCreateStage, target};
    return Stage{target.volume.uuid, *target.volume.thin_id, stage->uuid,
                 *stage->thin_id, size}
        .ToString();
  }

  absl::StatusOr<std::unique_ptr<BlockWriter>> OpenStage(
      const std::string& token) override {
    SNAPSYNC_ASSIGN_OR_RETURN(const Stage wanted, Stage::Parse(token));
    SNAPSYNC_ASSIGN_OR_RETURN(const ThinVolume target,
                              AsSeenBy(Call::kCreateStage));
    SNAPSYNC_ASSIGN_OR_RETURN(const LogicalVolume stage,
                              FindStage(target, wanted));
    if (stage.merging) {
      return Mismatch(target.volume, ": its stage is being committed");
    }
    SNAPSYNC_RETURN_IF_ERROR(MakeActive(stage));
    SNAPSYNC_RETURN_IF_ERROR(CheckNotOpen(stage));
    WriterOptions options;
    options.zero_method = ZeroMethod::kThinDiscard;
    options.discard_block = target.pool.chunk_size;
    options.exclusive = true;
    SNAPSYNC_ASSIGN_OR_RETURN(const PoolSpace space, SpaceFor(stage));
    SNAPSYNC_RETURN_IF_ERROR(space.CheckRoom(0, 0));
    SNAPSYNC_ASSIGN_OR_RETURN(auto writer,
                              OpenFileWriter(stage.device_path, options));
    return space.Watch(std::move(writer));
  }

  absl::StatusOr<std::string> Commit(const std::string& token, uint64_t number,
                                     const Id128& generation,
                                     const std::string& base_seal) override {
    SNAPSYNC_ASSIGN_OR_RETURN(const Stage wanted, Stage::Parse(token));
    SNAPSYNC_ASSIGN_OR_RETURN(ThinVolume target, Find());
    if (target.volume.uuid != wanted.volume_uuid) {
      return Mismatch(target.volume, "is not the volume of this session");
    }
    // An interrupted call may have merged without flushing.
    bool flushed = false;
    if (target.volume.thin_id != wanted.thin_id) {
      const absl::Status switched =
          Switch(target, wanted, number, generation, base_seal);
      flushed = switched.ok();
      SNAPSYNC_ASSIGN_OR_RETURN(target, Find());
      if (target.volume.thin_id != wanted.thin_id && !switched.ok()) {
        return switched;
      }
    }
    if (target.volume.thin_id != wanted.thin_id) {
      return Error(Reason::kBusy,
                   target.volume.FullName() +
                       ": LVM put the merge of the stage off until nobody has "
                       "the volume open; commit again");
    }
    SNAPSYNC_RETURN_IF_ERROR(MakeActive(target.volume));
    if (!flushed) {
      SNAPSYNC_RETURN_IF_ERROR(FlushPhysicalVolumes(target.volume.group_uuid));
    }
    SNAPSYNC_ASSIGN_OR_RETURN(const PoolSpace space, SpaceFor(target.volume));
    SNAPSYNC_RETURN_IF_ERROR(space.CheckMetadata());
    seen_ = {Call::kCommit, target};
    return MakeThinSeal(target, GenerationName(target.volume, number));
  }

  absl::StatusOr<std::vector<uint64_t>> Generations() override {
    SNAPSYNC_ASSIGN_OR_RETURN(const ThinVolume target,
                              AsSeenBy(Call::kInspect));
    std::vector<uint64_t> numbers;
    for (const LogicalVolume& other : target.group.volumes) {
      const auto number = GenerationNumber(target.volume, other.name);
      if (number.has_value() && IsOurs(target, other)) {
        numbers.push_back(*number);
      }
    }
    return numbers;
  }

  absl::StatusOr<std::string> GenerationPath(uint64_t number) override {
    SNAPSYNC_ASSIGN_OR_RETURN(const ThinVolume target, Find());
    SNAPSYNC_ASSIGN_OR_RETURN(const LogicalVolume found,
                              FindNumber(target, number));
    return "/dev/" + found.group + "/" + found.name;
  }

  absl::StatusOr<std::unique_ptr<BlockReader>> OpenGeneration(
      uint64_t number, const std::string& /*seal*/) override {
    SNAPSYNC_ASSIGN_OR_RETURN(const ThinVolume target, Find());
    SNAPSYNC_ASSIGN_OR_RETURN(const LogicalVolume found,
                              FindNumber(target, number));
    SNAPSYNC_RETURN_IF_ERROR(MakeActive(found));
    return OpenFileReader(found.device_path);
  }

  absl::StatusOr<std::optional<Id128>> FindGeneration(
      const std::vector<Id128>& candidates) override {
    SNAPSYNC_ASSIGN_OR_RETURN(const ThinVolume target, Find());
    const std::vector<HeldGeneration> all =
        FindHeldGenerations(target.group, target.volume.pool_uuid);
    return ChooseCommon(candidates, all);
  }

  absl::StatusOr<ExtentList> ChangedSince(const Id128& generation,
                                          uint64_t number) override {
    SNAPSYNC_ASSIGN_OR_RETURN(const ThinVolume target, Find());
    SNAPSYNC_ASSIGN_OR_RETURN(const LogicalVolume now,
                              FindNumber(target, number));
    const std::vector<HeldGeneration> all =
        FindHeldGenerations(target.group, target.volume.pool_uuid);
    const auto base = FindHeld(all, generation);
    if (base == all.end()) {
      return Mismatch(target.volume, "has no snapshot of generation " +
                                         generation.ToString() + " any more");
    }
    if (base->snapshot.uuid == now.uuid && base->whole()) return ExtentList();
    return ChangedBetween(target, *base, now, state_directory_);
  }

  absl::Status RemoveStage(const std::string& token) override {
    SNAPSYNC_ASSIGN_OR_RETURN(const ThinVolume target, Find());
    if (token.empty()) {
      return RemoveOurs(target,
                        target.group.FindName(StageName(target.volume)));
    }
    SNAPSYNC_ASSIGN_OR_RETURN(const Stage wanted, Stage::Parse(token));
    return RemoveOurs(target, target.group.FindUuid(wanted.uuid));
  }

  absl::Status Prune(uint64_t number, uint64_t keep) override {
    SNAPSYNC_ASSIGN_OR_RETURN(const ThinVolume target, AsSeenBy(Call::kCommit));
    seen_.reset();  // by another call right after it, what goes now is gone
    std::vector<LogicalVolume> old;
    for (const LogicalVolume& volume : target.group.volumes) {
      const std::optional<uint64_t> its_number =
          GenerationNumber(target.volume, volume.name);
      if (its_number.has_value() && *its_number < number &&
          number - *its_number >= keep && IsOurs(target, volume)) {
        old.push_back(volume);
      }
    }
    const absl::Status removed = RemoveVolumes(target.group, old);
    KeepMetadata(target.group.name);
    return removed;
  }

 private:
  // LVM is slow to ask: what these saw serves those that come right after them.
  enum class Call { kInspect, kCreateStage, kCommit };

  absl::StatusOr<ThinVolume> Find() {
    seen_.reset();
    return FindThinVolume(path_);
  }
  absl::StatusOr<ThinVolume> AsSeenBy(Call call) {
    if (seen_ && seen_->first == call) return seen_->second;
    return Find();
  }

  static std::vector<HeldGeneration>::const_iterator FindHeld(
      const std::vector<HeldGeneration>& all, const Id128& generation) {
    return std::find_if(all.begin(), all.end(), [&](const auto& held) {
      return held.generation == generation;
    });
  }

  static absl::StatusOr<LogicalVolume> FindNumber(const ThinVolume& target,
                                                  uint64_t number) {
    const LogicalVolume* found =
        target.group.FindName(GenerationName(target.volume, number));
    if (found == nullptr || !IsOurs(target, *found)) {
      return Error(Reason::kTargetUnsuitable,
                   target.volume.FullName() + " has no snapshot " +
                       GenerationName(target.volume, number) +
                       " any more; revert --list shows what there is");
    }
    return *found;
  }

  static bool IsOurs(const ThinVolume& target, const LogicalVolume& volume) {
    return volume.HasTag(kTag) && volume.thin_id.has_value() &&
           volume.pool_uuid == target.volume.pool_uuid &&
           volume.uuid != target.volume.uuid;
  }

  static absl::StatusOr<LogicalVolume> FindStage(const ThinVolume& target,
                                                 const Stage& wanted) {
    const LogicalVolume* stage = target.group.FindUuid(wanted.uuid);
    if (target.volume.uuid != wanted.volume_uuid) {
      return Mismatch(target.volume, "is not the volume of this session");
    }
    if (stage == nullptr || stage->thin_id != wanted.thin_id) {
      return Mismatch(target.volume, ": its stage is not there any more");
    }
    return *stage;
  }

  // `stage` may be nullptr: nothing to do. With it goes the generation that
  // was made of it, if the commit stopped before the merge.
  static absl::Status RemoveOurs(const ThinVolume& target,
                                 const LogicalVolume* stage) {
    if (stage == nullptr) return absl::OkStatus();
    if (!IsOurs(target, *stage)) {
      return Error(Reason::kTargetUnsuitable,
                   stage->FullName() + " is not SnapSync's (it has no tag \"" +
                       kTag + "\"), but has the name of a stage of " +
                       target.volume.name + "; rename or remove it");
    }
    if (stage->merging) {
      return Error(Reason::kBusy,
                   stage->FullName() +
                       " is being merged and can't be removed; the merge ends "
                       "when nobody has the volume open");
    }
    std::vector<LogicalVolume> volumes = {*stage};
    for (const LogicalVolume& volume : target.group.volumes) {
      if (volume.origin == stage->name && IsOurs(target, volume) &&
          GenerationNumber(target.volume, volume.name).has_value()) {
        volumes.push_back(volume);
      }
    }
    return RemoveVolumes(target.group, volumes);
  }

  // Up to the merge, without looking whether it was done or put off.
  absl::Status Switch(const ThinVolume& target, const Stage& wanted,
                      uint64_t number, const Id128& generation_id,
                      const std::string& base_seal) const {
    const LogicalVolume& volume = target.volume;
    if (volume.thin_id != wanted.volume_thin_id) {
      return Mismatch(volume, "was replaced while the stage was written");
    }
    SNAPSYNC_ASSIGN_OR_RETURN(const LogicalVolume stage,
                              FindStage(target, wanted));
    SNAPSYNC_RETURN_IF_ERROR(CheckNotOpen(volume));
    if (stage.merging) return RefreshVolume(volume);
    if (stage.size != volume.size) {
      return Mismatch(volume, "was resized while the stage was written");
    }
    if (!base_seal.empty()) {
      SNAPSYNC_RETURN_IF_ERROR(
          CheckThinSeal(target, base_seal, state_directory_));
    }
    const std::string name = GenerationName(volume, number);
    SNAPSYNC_RETURN_IF_ERROR(FreeGenerationName(target, stage, name));
    SNAPSYNC_RETURN_IF_ERROR(MakeActive(stage));
    SNAPSYNC_ASSIGN_OR_RETURN(const uint64_t mapped, MappedBytes(stage));
    SNAPSYNC_RETURN_IF_ERROR(CreateThinSnapshot(
        target.group, stage, name,
        {.read_only = true,
         .activation_skip = true,
         .tags = {kTag, GenerationTag(generation_id, mapped, wanted.size)}}));
    if (absl::Status in_use = DeactivateVolumes({volume, stage});
        !in_use.ok()) {
      Reactivate(volume);
      if (absl::Status s = RemoveGenerationOf(stage, name); !s.ok()) {
        Log(Severity::kWarning, MessageOf(s));
      }
      return in_use;
    }
    // Whatever it says: whether the merge was committed, the thin id tells.
    // Until then the generation goes with the stage.
    absl::Status merged = MergeSnapshot(stage);
    if (!merged.ok()) Reactivate(volume);
    return merged;
  }

  // That was made just now.
  absl::Status RemoveGenerationOf(const LogicalVolume& stage,
                                  const std::string& name) const {
    SNAPSYNC_ASSIGN_OR_RETURN(const ThinVolume target, FindThinVolume(path_));
    const LogicalVolume* made = target.group.FindName(name);
    if (made == nullptr || made->origin != stage.name ||
        !IsOurs(target, *made)) {
      return absl::OkStatus();
    }
    return RemoveVolumes(target.group, {*made});
  }

  // A power cut can leave a disk on which LVM does not find its group any more.
  // Without this copy there are older ones: no reason for a sync to fail.
  void KeepMetadata(const std::string& group) const {
    const std::string folder = state_directory_ + "/lvm";
    absl::Status kept = MakeFolder(folder);
    if (kept.ok()) kept = SaveGroupMetadata(group, folder + "/" + group);
    if (!kept.ok()) Log(Severity::kWarning, MessageOf(kept));
  }

  static void Reactivate(const LogicalVolume& volume) {
    if (absl::Status s = ActivateVolumes({volume}); !s.ok()) {
      Log(Severity::kError, MessageOf(s));
    }
  }

  // `name` may be taken: by an interrupted commit of this stage, which is
  // removed, or by a generation of a history whose record was lost, which is
  // kept under another name.
  static absl::Status FreeGenerationName(const ThinVolume& target,
                                         const LogicalVolume& stage,
                                         const std::string& name) {
    const LogicalVolume* old = target.group.FindName(name);
    if (old == nullptr) return absl::OkStatus();
    if (IsOurs(target, *old) && old->origin == stage.name) {
      return RemoveVolumes(target.group, {*old});
    }
    const std::string new_name = name + ".kept-" + old->uuid.substr(0, 6);
    Log(Severity::kWarning, old->FullName() +
                                " is of another history of this volume; it is "
                                "kept as " +
                                new_name);
    return RenameVolume(*old, new_name);
  }

  const std::string path_;
  const std::string state_directory_;
  std::optional<std::pair<Call, ThinVolume>> seen_;
};

}  // namespace

std::unique_ptr<Target> MakeThinTarget(const std::string& path,
                                       const std::string& state_directory) {
  return std::make_unique<LvmThinTarget>(path, state_directory);
}

}  // namespace snapsync
