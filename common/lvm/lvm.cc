// SPDX-License-Identifier: Apache-2.0
#include "common/lvm/lvm.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/strings/numbers.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/subprocess.h"
#include "common/lvm/physical_volumes.h"

namespace snapsync {
namespace {

constexpr char kFields[] =
    "vg_name,vg_uuid,lv_name,lv_uuid,lv_dm_path,lv_attr,lv_active,lv_size,"
    "lv_skip_activation,lv_merging,lv_tags,pool_lv,pool_lv_uuid,origin,segtype,"
    "thin_id,transaction_id,chunk_size";

bool Contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

// LVM has one exit status (5) for nearly everything: its words tell more.
absl::Status Failure(const std::string& subject,
                     const SubprocessResult& result) {
  Reason reason = Reason::kIo;
  const std::string& words = result.error_output;
  if (Contains(words, "needs check") || Contains(words, ", while expected ")) {
    // A pool whose metadata could not be written, whatever else LVM says of it:
    // thresholds, permission. It may have counted a change that the kernel took
    // back ("transaction_id is 96, while expected 97").
    return Error(Reason::kTargetUnsuitable,
                 subject + ": " + DescribeFailure(result) +
                     "; docs/operating.md has how the pool is mended");
  }
  if (Contains(words, "not found") || Contains(words, "Failed to find")) {
    reason = Reason::kTargetUnsuitable;
  } else if (Contains(words, " in use") || Contains(words, "is used by")) {
    reason = Reason::kBusy;
  } else if (Contains(words, "Permission denied") ||
             Contains(words, "Operation not permitted")) {
    reason = Reason::kPermission;
  } else if (Contains(words, "reached threshold")) {
    // Of a pool's data or metadata: LVM makes nothing new in it.
    return Error(Reason::kNoSpace, subject + ": " + DescribeFailure(result) +
                                       "; enlarge it (lvextend)");
  }
  return Error(reason, subject + ": " + DescribeFailure(result));
}

absl::Status Run(const std::string& subject,
                 const std::vector<std::string>& argv) {
  SNAPSYNC_ASSIGN_OR_RETURN(const SubprocessResult result, RunSubprocess(argv));
  if (result.exit_status != 0) return Failure(subject, result);
  return absl::OkStatus();
}

// A command that changes the volume group. The flush comes also after a
// failure: LVM may have committed something before.
absl::Status Change(const LogicalVolume& volume,
                    const std::vector<std::string>& argv) {
  const absl::Status status = Run(volume.FullName(), argv);
  const absl::Status flushed = FlushPhysicalVolumes(volume.group_uuid);
  return status.ok() ? flushed : status;
}

std::vector<std::string> WithNames(std::vector<std::string> argv,
                                   const std::vector<LogicalVolume>& volumes) {
  argv.emplace_back("--");
  for (const LogicalVolume& volume : volumes) {
    argv.push_back(volume.FullName());
  }
  return argv;
}

std::string NamesOf(const std::vector<LogicalVolume>& volumes) {
  std::string names;
  for (const LogicalVolume& volume : volumes) {
    names += (names.empty() ? "" : ", ") + volume.FullName();
  }
  return names;
}

// Whether `thin_id` is that of one of `volumes`, and of no other in their pool.
bool IsOnlyOf(const VolumeGroup& group,
              const std::vector<LogicalVolume>& volumes, uint32_t thin_id) {
  size_t owners = 0;
  for (const LogicalVolume& volume : group.volumes) {
    if (volume.thin_id != thin_id ||
        volume.pool_uuid != volumes.front().pool_uuid) {
      continue;
    }
    if (std::none_of(volumes.begin(), volumes.end(), [&](const auto& wanted) {
          return wanted.uuid == volume.uuid;
        })) {
      return false;
    }
    ++owners;
  }
  return owners == 1;
}

bool IsAboveAll(const VolumeGroup& group, const std::string& pool_uuid,
                uint32_t thin_id) {
  return std::all_of(group.volumes.begin(), group.volumes.end(),
                     [&](const LogicalVolume& volume) {
                       return volume.pool_uuid != pool_uuid ||
                              volume.thin_id.value_or(0) < thin_id;
                     });
}

absl::Status DeleteThinDevice(const VolumeGroup& group,
                              const std::string& pool_uuid, uint32_t thin_id) {
  const LogicalVolume* pool = group.FindUuid(pool_uuid);
  if (pool == nullptr) {
    return Error(Reason::kIo, "volume group " + group.name +
                                  " has no thin pool " + pool_uuid);
  }
  return Run(pool->FullName(),
             {"dmsetup", "message", pool->device_path + "-tpool", "0",
              "delete " + std::to_string(thin_id)});
}

// Change(), and once again without the thin device that LVM stumbles over, if
// `may_delete` says that it is nobody's.
absl::Status ChangeInPool(const VolumeGroup& group,
                          const std::string& pool_uuid,
                          const std::vector<LogicalVolume>& volumes,
                          const std::vector<std::string>& argv,
                          const std::function<bool(uint32_t)>& may_delete) {
  SNAPSYNC_ASSIGN_OR_RETURN(const SubprocessResult first, RunSubprocess(argv));
  SNAPSYNC_RETURN_IF_ERROR(FlushPhysicalVolumes(volumes.front().group_uuid));
  if (first.exit_status == 0) return absl::OkStatus();
  const std::optional<uint32_t> orphan = OrphanThinIdIn(first.error_output);
  if (!orphan.has_value() || !may_delete(*orphan)) {
    return Failure(NamesOf(volumes), first);
  }
  SNAPSYNC_RETURN_IF_ERROR(DeleteThinDevice(group, pool_uuid, *orphan));
  return Change(volumes.front(), argv);
}

void AddTags(const std::vector<std::string>& tags,
             std::vector<std::string>& argv) {
  for (const std::string& tag : tags) {
    argv.emplace_back("--addtag");
    argv.push_back(tag);
  }
}

absl::Status CheckNewName(const std::string& name) {
  if (IsValidVolumeName(name)) return absl::OkStatus();
  return Error(Reason::kUsage,
               "\"" + name + "\" can't be the name of a logical volume");
}

}  // namespace

absl::StatusOr<VolumeGroup> ReadVolumeGroup(const std::string& group) {
  SNAPSYNC_ASSIGN_OR_RETURN(
      const SubprocessResult result,
      RunSubprocess({"lvs", "--reportformat", "json", "--units", "b",
                     "--nosuffix", "-a", "-o", kFields, "--", group}));
  if (result.exit_status != 0) {
    return Failure("volume group " + group, result);
  }
  return ParseVolumeReport(group, result.output);
}

absl::Status CreateThinSnapshot(const VolumeGroup& group,
                                const LogicalVolume& origin,
                                const std::string& name,
                                const SnapshotOptions& options) {
  SNAPSYNC_RETURN_IF_ERROR(CheckNewName(name));
  std::vector<std::string> argv = {"lvcreate",
                                   "-y",
                                   "-qq",
                                   "-s",
                                   options.read_only ? "-pr" : "-prw",
                                   options.activation_skip ? "-ky" : "-kn",
                                   "-n",
                                   name};
  if (options.active) argv.emplace_back("-K");
  AddTags(options.tags, argv);
  return ChangeInPool(group, origin.pool_uuid, {origin},
                      WithNames(std::move(argv), {origin}),
                      [&](uint32_t thin_id) {
                        return IsAboveAll(group, origin.pool_uuid, thin_id);
                      });
}

absl::Status CreateEmptyThinVolume(const VolumeGroup& group,
                                   const LogicalVolume& pool,
                                   const std::string& name,
                                   const std::vector<std::string>& tags) {
  SNAPSYNC_RETURN_IF_ERROR(CheckNewName(name));
  std::vector<std::string> argv = {"lvcreate", "-y", "-qq", "-an", "-ky", "-pr",
                                   "-Wn",      "-V", "1",   "-n",  name};
  AddTags(tags, argv);
  argv.emplace_back("-T");
  return ChangeInPool(
      group, pool.uuid, {pool}, WithNames(std::move(argv), {pool}),
      [&](uint32_t thin_id) { return IsAboveAll(group, pool.uuid, thin_id); });
}

absl::Status ActivateVolumes(const std::vector<LogicalVolume>& volumes) {
  return Run(NamesOf(volumes),
             WithNames({"lvchange", "-y", "-qq", "-ay", "-K"}, volumes));
}

absl::Status DeactivateVolumes(const std::vector<LogicalVolume>& volumes) {
  return Run(NamesOf(volumes),
             WithNames({"lvchange", "-y", "-qq", "-an"}, volumes));
}

absl::Status RemoveVolumes(const VolumeGroup& group,
                           const std::vector<LogicalVolume>& volumes) {
  if (volumes.empty()) return absl::OkStatus();
  std::string which;
  for (const LogicalVolume& volume : volumes) {
    if (!which.empty()) which += " || ";
    which += "(lv_uuid=" + volume.uuid + " && lv_name=\"" + volume.name + "\")";
  }
  return ChangeInPool(
      group, volumes.front().pool_uuid, volumes,
      {"lvremove", "-y", "-qq", "-f", "-S", which, "--", group.name},
      [&](uint32_t thin_id) { return IsOnlyOf(group, volumes, thin_id); });
}

absl::Status AddTag(const LogicalVolume& volume, const std::string& tag) {
  return Change(volume,
                WithNames({"lvchange", "-qq", "--addtag", tag}, {volume}));
}

absl::Status RenameVolume(const LogicalVolume& volume,
                          const std::string& new_name) {
  SNAPSYNC_RETURN_IF_ERROR(CheckNewName(new_name));
  return Change(volume,
                {"lvrename", "-qq", "--", volume.group, volume.name, new_name});
}

absl::Status MergeSnapshot(const LogicalVolume& snapshot) {
  return Change(snapshot,
                WithNames({"lvconvert", "-y", "-qq", "--merge"}, {snapshot}));
}

absl::Status RefreshVolume(const LogicalVolume& volume) {
  return Change(volume,
                WithNames({"lvchange", "-y", "-qq", "--refresh"}, {volume}));
}

absl::Status SaveGroupMetadata(const std::string& group,
                               const std::string& path) {
  return Run(group, {"vgcfgbackup", "-qq", "-f", path, "--", group});
}

std::optional<uint32_t> OrphanThinIdIn(std::string_view message) {
  constexpr std::string_view kWords =
      "already contain thin device with device_id ";
  const size_t at = message.find(kWords);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view rest = message.substr(at + kWords.size());
  const std::string_view digits =
      rest.substr(0, rest.find_first_not_of("0123456789"));
  uint32_t id = 0;
  if (!absl::SimpleAtoi(absl::string_view(digits.data(), digits.size()), &id)) {
    return std::nullopt;
  }
  return id;
}

}  // namespace snapsync
