// SPDX-License-Identifier: Apache-2.0
#include "agent/targets/thin_seal.h"

#include "agent/targets/named_values.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace snapsync {
namespace {

constexpr char kKind[] = "thin-seal";

}  // namespace

std::string MakeThinSeal(const ThinVolume& target,
                         const std::string& generation) {
  NamedValues seal(kKind);
  seal.Set("volume", target.volume.uuid)
      .Set("volume-id", *target.volume.thin_id)
      .Set("name", generation);
  const LogicalVolume* snapshot = target.group.FindName(generation);
  if (snapshot == nullptr || !snapshot->thin_id.has_value()) {
    // Somebody removed it after the merge. The commit stands; this seal will
    // never be proven, so the next sync compares or sends everything.
    Log(Severity::kError, target.volume.FullName() +
                              ": the generation snapshot " + generation +
                              " was removed");
    return seal.ToString();
  }
  return seal.Set("generation", snapshot->uuid)
      .Set("generation-id", *snapshot->thin_id)
      .ToString();
}

absl::Status CheckThinSeal(const ThinVolume& target, const std::string& seal,
                           const std::string& state_directory) {
  SNAPSYNC_ASSIGN_OR_RETURN(const NamedValues values,
                            NamedValues::Parse(kKind, seal));
  const LogicalVolume& volume = target.volume;
  if (volume.uuid != values.Text("volume")) {
    return Mismatch(volume,
                    "is another volume than the one that was synced (its UUID "
                    "is not the recorded one)");
  }
  if (volume.thin_id != values.Number("volume-id")) {
    return Mismatch(volume,
                    "was replaced since the last sync: its thin id is " +
                        std::to_string(*volume.thin_id) + ", recorded is " +
                        values.Text("volume-id"));
  }
  const LogicalVolume* snapshot =
      target.group.FindUuid(values.Text("generation"));
  if (snapshot == nullptr ||
      snapshot->thin_id != values.Number("generation-id") ||
      snapshot->pool_uuid != volume.pool_uuid) {
    return Mismatch(volume, ": its generation snapshot " + values.Text("name") +
                                " is not there any more, so nothing proves "
                                "what the volume holds");
  }
  SNAPSYNC_RETURN_IF_ERROR(MakeActive(volume));
  return CheckSameAsGeneration(target, *snapshot, state_directory);
}

}  // namespace snapsync
