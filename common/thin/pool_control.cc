// SPDX-License-Identifier: Apache-2.0
#include "common/thin/pool_control.h"

#include <libdevmapper.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "common/thin/format.h"

namespace snapsync {
namespace {

constexpr size_t kLvmUuidSize = 32;

// libdevmapper keeps state of its own (its control device, its log function).
// Recursive: the list of all devices is read while one of them is asked.
std::recursive_mutex library_mutex;
using LibraryLock = std::lock_guard<std::recursive_mutex>;

struct DestroyTask {
  void operator()(dm_task* task) const { dm_task_destroy(task); }
};
using Task = std::unique_ptr<dm_task, DestroyTask>;

// What libdevmapper would print on stderr: errors are told by their number.
__attribute__((format(printf, 5, 6))) void Silent(int, const char*, int, int,
                                                  const char*, ...) {}

absl::StatusOr<Task> MakeTask(int type) {
  dm_log_with_errno_init(&Silent);
  Task task(dm_task_create(type));
  if (!task) {
    return Error(Reason::kIo,
                 "device-mapper: can't begin a request; is the kernel's "
                 "dm-mod loaded?");
  }
  return task;
}

absl::Status RunTask(const Task& task, const std::string& what) {
  if (dm_task_run(task.get()) != 0) return absl::OkStatus();
  const int error = dm_task_get_errno(task.get());
  // EPERM: dm-thin's metadata are read-only. (Who may not ask gets EACCES.)
  if (error == EOPNOTSUPP || error == EPERM) {
    return Error(Reason::kTargetUnsuitable,
                 absl::StrCat(what,
                              ": the pool is read-only or failed; "
                              "docs/operating.md has what to do"));
  }
  return PosixError(error != 0 ? error : EPERM,
                    absl::StrCat("device-mapper: ", what));
}

// One target of a device, and the device.
struct Target {
  MappedDevice device;
  uint64_t sectors = 0;
  std::string type;
  std::string parameters;
};

bool HasNumber(const dm_info& info, DeviceNumber number) {
  return info.exists != 0 && info.major == number.major &&
         info.minor == number.minor;
}

// nullopt when there is no such device, or it has not exactly one target.
absl::StatusOr<std::optional<Target>> OnlyTarget(int type,
                                                 DeviceNumber number) {
  const LibraryLock lock(library_mutex);
  SNAPSYNC_ASSIGN_OR_RETURN(const Task task, MakeTask(type));
  dm_task_set_major_minor(task.get(), static_cast<int>(number.major),
                          static_cast<int>(number.minor), 0);
  dm_task_no_flush(task.get());
  dm_task_no_open_count(task.get());
  if (dm_task_run(task.get()) == 0) {
    const int error = dm_task_get_errno(task.get());
    // Not a device of device-mapper, or gone.
    if (error == ENXIO || error == ENODEV || error == EINVAL) {
      return std::optional<Target>();
    }
    return PosixError(error != 0 ? error : EPERM,
                      absl::StrCat("device-mapper: can't ask for device ",
                                   number.major, ":", number.minor));
  }
  dm_info info{};
  if (dm_task_get_info(task.get(), &info) == 0 || !HasNumber(info, number)) {
    return std::optional<Target>();
  }
  uint64_t start = 0;
  uint64_t length = 0;
  char* target_type = nullptr;
  char* parameters = nullptr;
  void* next = dm_get_next_target(task.get(), nullptr, &start, &length,
                                  &target_type, &parameters);
  if (next != nullptr || target_type == nullptr) return std::optional<Target>();
  const char* name = dm_task_get_name(task.get());
  const char* uuid = dm_task_get_uuid(task.get());
  Target target;
  target.device.number = number;
  target.device.name = name == nullptr ? "" : name;
  target.device.uuid = uuid == nullptr ? "" : uuid;
  target.device.read_only = info.read_only != 0;
  target.device.suspended = info.suspended != 0;
  target.sectors = length;
  target.type = target_type;
  target.parameters = parameters == nullptr ? "" : parameters;
  return std::optional<Target>(std::move(target));
}

std::optional<DeviceNumber> ParseNumber(const std::string& word) {
  const std::vector<std::string> parts = absl::StrSplit(word, ':');
  DeviceNumber number;
  if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &number.major) ||
      !absl::SimpleAtoi(parts[1], &number.minor)) {
    return std::nullopt;
  }
  return number;
}

absl::Status BadTable(const Target& target) {
  return Error(Reason::kIo,
               absl::StrCat("device-mapper device ", target.device.name,
                            ": table \"", target.type, " ", target.parameters,
                            "\": not the words that such a target has"));
}

absl::Status SendMessage(const PoolTarget& pool, const char* message) {
  const LibraryLock lock(library_mutex);
  SNAPSYNC_ASSIGN_OR_RETURN(const Task task, MakeTask(DM_DEVICE_TARGET_MSG));
  dm_task_set_major_minor(task.get(),
                          static_cast<int>(pool.device.number.major),
                          static_cast<int>(pool.device.number.minor), 0);
  dm_task_set_sector(task.get(), 0);
  dm_task_set_message(task.get(), message);
  return RunTask(task, absl::StrCat("pool ", pool.device.name, ": ", message));
}

// The kernel commits the pool behind a message, but doesn't tell when it can't:
// it takes the change back, and the pool is only read from then on.
absl::Status ChangeMetadata(const PoolTarget& pool, const char* message) {
  SNAPSYNC_RETURN_IF_ERROR(SendMessage(pool, message));
  SNAPSYNC_ASSIGN_OR_RETURN(const PoolStatus status, ReadPoolStatus(pool));
  const std::optional<std::string> found = status.WhyReadOnly();
  if (!found) return absl::OkStatus();
  return Error(
      Reason::kTargetUnsuitable,
      absl::StrCat("pool ", pool.device.name, ": ", message,
                   ": the kernel could not write that to the pool's metadata (",
                   *found, "); docs/operating.md has what to do"));
}

// A kernel without device-mapper has no live pools.
bool KernelHasDeviceMapper() {
  std::ifstream misc("/proc/misc");
  if (!misc) return true;
  std::string minor;
  std::string name;
  while (misc >> minor >> name) {
    if (name == "device-mapper") return true;
  }
  return false;
}

}  // namespace

std::string DeviceNumber::Path() const {
  // The kernel's own name; /dev/block is made by udev, which need not run.
  const std::string by_number = absl::StrCat(major, ":", minor);
  char link[4096];
  const ssize_t size = ::readlink(
      absl::StrCat("/sys/dev/block/", by_number).c_str(), link, sizeof link);
  if (size > 0) {
    std::string name(link, static_cast<size_t>(size));
    name.erase(0, name.rfind('/') + 1);
    for (char& character : name) {
      if (character == '!') character = '/';
    }
    const std::string path = absl::StrCat("/dev/", name);
    struct stat facts {};
    if (::stat(path.c_str(), &facts) == 0 && S_ISBLK(facts.st_mode) &&
        facts.st_rdev == makedev(major, minor)) {
      return path;
    }
  }
  return absl::StrCat("/dev/block/", by_number);
}

absl::StatusOr<std::optional<DeviceNumber>> BlockDeviceNumber(
    const std::string& path) {
  struct stat facts {};
  if (::stat(path.c_str(), &facts) != 0) {
    return PosixError(errno, path);
  }
  if (!S_ISBLK(facts.st_mode)) return std::optional<DeviceNumber>();
  return std::optional<DeviceNumber>(
      DeviceNumber{major(facts.st_rdev), minor(facts.st_rdev)});
}

absl::StatusOr<std::optional<ThinTarget>> FindThin(DeviceNumber number) {
  if (!KernelHasDeviceMapper()) return std::optional<ThinTarget>();
  SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<Target> target,
                            OnlyTarget(DM_DEVICE_TABLE, number));
  if (!target || target->type != "thin") return std::optional<ThinTarget>();
  // pool, device id, perhaps the external origin
  const std::vector<std::string> words =
      absl::StrSplit(target->parameters, ' ', absl::SkipEmpty());
  ThinTarget thin;
  thin.device = target->device;
  thin.size = target->sectors * kSectorBytes;
  const std::optional<DeviceNumber> pool =
      words.empty() ? std::nullopt : ParseNumber(words[0]);
  if (!pool || words.size() < 2 || words.size() > 3 ||
      !absl::SimpleAtoi(words[1], &thin.thin_id)) {
    return BadTable(*target);
  }
  thin.pool = *pool;
  if (words.size() == 3) thin.external_origin = words[2];
  return std::optional<ThinTarget>(std::move(thin));
}

absl::StatusOr<std::optional<PoolTarget>> FindPool(DeviceNumber number) {
  if (!KernelHasDeviceMapper()) return std::optional<PoolTarget>();
  SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<Target> target,
                            OnlyTarget(DM_DEVICE_TABLE, number));
  if (!target || target->type != "thin-pool") {
    return std::optional<PoolTarget>();
  }
  // metadata device, data device, block size, ...
  const std::vector<std::string> words =
      absl::StrSplit(target->parameters, ' ', absl::SkipEmpty());
  PoolTarget pool;
  pool.device = target->device;
  const std::optional<DeviceNumber> metadata =
      words.size() < 3 ? std::nullopt : ParseNumber(words[0]);
  const std::optional<DeviceNumber> data =
      words.size() < 3 ? std::nullopt : ParseNumber(words[1]);
  if (!metadata || !data ||
      !absl::SimpleAtoi(words[2], &pool.data_block_sectors)) {
    return BadTable(*target);
  }
  pool.metadata = *metadata;
  pool.data = *data;
  return std::optional<PoolTarget>(std::move(pool));
}

absl::StatusOr<std::optional<PoolTarget>> FindPoolOfMetadata(
    DeviceNumber metadata) {
  if (!KernelHasDeviceMapper()) return std::optional<PoolTarget>();
  const LibraryLock lock(library_mutex);
  SNAPSYNC_ASSIGN_OR_RETURN(const Task task, MakeTask(DM_DEVICE_LIST));
  SNAPSYNC_RETURN_IF_ERROR(RunTask(task, "can't list the devices"));
  const dm_names* entry = dm_task_get_names(task.get());
  if (entry == nullptr || entry->dev == 0) return std::optional<PoolTarget>();
  while (true) {
    SNAPSYNC_ASSIGN_OR_RETURN(std::optional<PoolTarget> pool,
                              FindPool({major(entry->dev), minor(entry->dev)}));
    if (pool && pool->metadata == metadata) return pool;
    if (entry->next == 0) return std::optional<PoolTarget>();
    entry = reinterpret_cast<const dm_names*>(
        reinterpret_cast<const char*>(entry) + entry->next);
  }
}

absl::StatusOr<std::optional<int>> ReadOpenCount(DeviceNumber number) {
  if (!KernelHasDeviceMapper()) return std::optional<int>();
  const LibraryLock lock(library_mutex);
  SNAPSYNC_ASSIGN_OR_RETURN(const Task task, MakeTask(DM_DEVICE_INFO));
  dm_task_set_major_minor(task.get(), static_cast<int>(number.major),
                          static_cast<int>(number.minor), 0);
  if (dm_task_run(task.get()) == 0) {
    const int error = dm_task_get_errno(task.get());
    if (error == ENXIO || error == ENODEV || error == EINVAL) {
      return std::optional<int>();
    }
    return PosixError(error != 0 ? error : EPERM,
                      absl::StrCat("device-mapper: can't ask for device ",
                                   number.major, ":", number.minor));
  }
  dm_info info{};
  if (dm_task_get_info(task.get(), &info) == 0 || !HasNumber(info, number)) {
    return std::optional<int>();
  }
  return std::optional<int>(info.open_count);
}

absl::StatusOr<uint64_t> ReadMappedBytes(DeviceNumber number) {
  SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<Target> target,
                            OnlyTarget(DM_DEVICE_STATUS, number));
  // mapped sectors, highest mapped sector
  uint64_t sectors = 0;
  if (!target || target->type != "thin" ||
      !absl::SimpleAtoi(
          target->parameters.substr(0, target->parameters.find(' ')),
          &sectors)) {
    return Error(
        Reason::kIo,
        absl::StrCat("device-mapper device ", number.major, ":", number.minor,
                     ": its status \"", target ? target->parameters : "",
                     "\" is not that of a working thin device"));
  }
  return sectors * kSectorBytes;
}

absl::StatusOr<PoolStatus> ReadPoolStatus(const PoolTarget& pool) {
  SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<Target> target,
                            OnlyTarget(DM_DEVICE_STATUS, pool.device.number));
  if (!target || target->type != "thin-pool") {
    return Error(Reason::kIo, absl::StrCat("pool ", pool.device.name,
                                           ": is not active any more"));
  }
  absl::StatusOr<PoolStatus> status = ParsePoolStatus(target->parameters);
  if (!status.ok()) {
    return Annotate(status.status(), absl::StrCat("pool ", pool.device.name));
  }
  return status;
}

absl::Status ReserveMetadataSnapshot(const PoolTarget& pool) {
  return ChangeMetadata(pool, "reserve_metadata_snap");
}

absl::Status ReleaseMetadataSnapshot(const PoolTarget& pool) {
  return ChangeMetadata(pool, "release_metadata_snap");
}

std::optional<LvmUuids> ParseLvmUuid(std::string_view device_mapper_uuid) {
  constexpr std::string_view kPrefix = "LVM-";
  if (!device_mapper_uuid.starts_with(kPrefix) ||
      device_mapper_uuid.size() < kPrefix.size() + 2 * kLvmUuidSize) {
    return std::nullopt;
  }
  device_mapper_uuid.remove_prefix(kPrefix.size());
  const std::string_view rest = device_mapper_uuid.substr(2 * kLvmUuidSize);
  if (!rest.empty() && rest.front() != '-') return std::nullopt;
  return LvmUuids{
      std::string(device_mapper_uuid.substr(0, kLvmUuidSize)),
      std::string(device_mapper_uuid.substr(kLvmUuidSize, kLvmUuidSize))};
}

std::string FormatLvmUuid(std::string_view uuid) {
  if (uuid.size() != kLvmUuidSize) return std::string(uuid);
  // 6-4-4-4-4-4-6
  std::string text;
  for (size_t at = 0; at < uuid.size(); ++at) {
    if (at >= 6 && at <= 26 && (at - 6) % 4 == 0) text += '-';
    text += uuid[at];
  }
  return text;
}

std::string MapperName(std::string_view vg, std::string_view lv) {
  std::string name;
  const auto append = [&](std::string_view part) {
    for (const char character : part) {
      name += character;
      if (character == '-') name += '-';
    }
  };
  append(vg);
  name += '-';
  append(lv);
  return name;
}

}  // namespace snapsync
