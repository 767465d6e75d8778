// SPDX-License-Identifier: Apache-2.0
#include "sender/saved_base.h"

#include <utility>
#include <vector>

#include "common/base/atomic_file.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/thin/saved_delta.h"
#include "common/thin/saved_mappings.h"

namespace snapsync {
namespace {

std::string WitnessTag(const ReplicationStore& store) {
  return "snapsync.witness=" + store.name();
}

absl::StatusOr<LogicalVolume> MakeWitness(const LogicalVolume& volume,
                                          const Id128& id,
                                          const ReplicationStore& store) {
  const std::string name =
      (volume.origin.empty() ? volume.name : volume.origin) + ".witness-" +
      id.Short();
  SNAPSYNC_ASSIGN_OR_RETURN(VolumeGroup group, ReadVolumeGroup(volume.group));
  const LogicalVolume* pool = group.FindUuid(volume.pool_uuid);
  if (pool == nullptr) {
    return Error(Reason::kIo, volume.FullName() + ": its pool is gone");
  }
  SNAPSYNC_RETURN_IF_ERROR(
      CreateEmptyThinVolume(group, *pool, name, {WitnessTag(store)}));
  SNAPSYNC_ASSIGN_OR_RETURN(group, ReadVolumeGroup(volume.group));
  const LogicalVolume* made = group.FindName(name);
  if (made == nullptr || !made->thin_id) {
    return Error(Reason::kIo, volume.group + "/" + name +
                                  " was made, but LVM does not know it");
  }
  return *made;
}

absl::Status WriteMappings(PoolView& view, const BaseRecord& record,
                           const SavedMappingsName& name,
                           const std::string& path) {
  SNAPSYNC_RETURN_IF_ERROR(RemoveFile(path));  // of a view that moved
  SNAPSYNC_ASSIGN_OR_RETURN(MappingsFile file, MappingsFile::Create(path));
  MappingsWriter writer(name, [&file](std::span<const std::byte> bytes) {
    return file.Append(bytes);
  });
  SNAPSYNC_RETURN_IF_ERROR(SaveMappings(view, record, writer));
  return file.Finish();
}

}  // namespace

absl::StatusOr<SavedBase> SaveBase(const LogicalVolume& volume,
                                   const MetadataSource& metadata,
                                   const BaseRecord& record,
                                   const Id128& generation,
                                   const ReplicationStore& store) {
  SavedBase saved;
  saved.mappings = Id128::Random();
  SNAPSYNC_ASSIGN_OR_RETURN(const LogicalVolume witness,
                            MakeWitness(volume, saved.mappings, store));
  saved.witness.lv_uuid = witness.uuid;
  saved.witness.device_id = *witness.thin_id;
  const std::string path = store.MappingsPath(saved.mappings);
  SNAPSYNC_RETURN_IF_ERROR(
      WithPoolView(metadata, [&](PoolView& view) -> absl::Status {
        SNAPSYNC_ASSIGN_OR_RETURN(const ThinDevice device,
                                  view.RequireDevice(*witness.thin_id));
        saved.witness.transaction_id = device.transaction_id;
        saved.witness.creation_time = device.creation_time;
        return WriteMappings(view, record, {saved.mappings, generation}, path);
      }));
  return saved;
}

absl::Status RemoveOtherSavedBases(const std::string& group,
                                   const ReplicationState& state,
                                   const ReplicationStore& store) {
  SNAPSYNC_RETURN_IF_ERROR(store.RemoveOtherMappings(state));
  SNAPSYNC_ASSIGN_OR_RETURN(const VolumeGroup all, ReadVolumeGroup(group));
  std::vector<LogicalVolume> unneeded;
  for (const LogicalVolume& volume : all.volumes) {
    if (volume.HasTag(WitnessTag(store)) &&
        !(state.base && state.base->saved &&
          state.base->saved->witness.lv_uuid == volume.uuid)) {
      unneeded.push_back(volume);
    }
  }
  return RemoveVolumes(all, unneeded);
}

}  // namespace snapsync
