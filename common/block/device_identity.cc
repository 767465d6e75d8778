// SPDX-License-Identifier: Apache-2.0
#include "common/block/device_identity.h"

#include <blkid/blkid.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <filesystem>
#include <memory>

#include "common/base/error.h"
#include "common/base/first_line.h"

namespace snapsync {
namespace {

using Probe = std::unique_ptr<blkid_struct_probe, void (*)(blkid_probe)>;

Probe OpenProbe(const std::string& path) {
  return {::blkid_new_probe_from_filename(path.c_str()), ::blkid_free_probe};
}

// Trimmed, and inner white space as one '_': serial numbers are padded.
std::string Attribute(const std::string& path) {
  std::string text;
  for (const char letter : FirstLine(path)) {
    const bool space = static_cast<unsigned char>(letter) <= ' ' ||
                       static_cast<unsigned char>(letter) >= 0x7f;
    if (!space) {
      text += letter;
    } else if (!text.empty() && text.back() != '_') {
      text += '_';
    }
  }
  while (!text.empty() && text.back() == '_') text.pop_back();
  return text;
}

// The identity of a whole disk; empty when it has none of its own.
std::string IdentityOfDisk(const std::string& folder) {
  for (const char* name : {"/wwid", "/device/wwid"}) {
    if (std::string text = Attribute(folder + name); !text.empty()) {
      return "wwid:" + text;
    }
  }
  for (const char* name : {"/serial", "/device/serial"}) {
    if (std::string text = Attribute(folder + name); !text.empty()) {
      return "serial:" + text;
    }
  }
  return "";
}

std::string PartitionUuid(const std::string& path) {
  const Probe probe = OpenProbe(path);
  if (probe == nullptr) return "";
  ::blkid_probe_enable_superblocks(probe.get(), 0);
  ::blkid_probe_enable_partitions(probe.get(), 1);
  ::blkid_probe_set_partitions_flags(probe.get(), BLKID_PARTS_ENTRY_DETAILS);
  const char* value = nullptr;
  if (::blkid_do_fullprobe(probe.get()) < 0 ||
      ::blkid_probe_lookup_value(probe.get(), "PART_ENTRY_UUID", &value,
                                 nullptr) != 0 ||
      value == nullptr) {
    return "";
  }
  return value;
}

}  // namespace

absl::StatusOr<std::string> IdentifyDevice(const std::string& path) {
  struct stat facts {};
  if (::stat(path.c_str(), &facts) != 0) {
    return PosixError(errno, path + ": can't be examined");
  }
  if (!S_ISBLK(facts.st_mode)) {
    return Error(Reason::kTargetUnsuitable, path + " is not a block device");
  }
  const std::string number = std::to_string(major(facts.st_rdev)) + ":" +
                             std::to_string(minor(facts.st_rdev));
  std::error_code error;
  const std::filesystem::path real =
      std::filesystem::canonical("/sys/dev/block/" + number, error);
  if (error) {
    return PosixError(error.value(),
                      path + ": the kernel has no device " + number);
  }
  const std::string folder = real;
  const std::string kernel_name = real.filename();
  if (std::string uuid = Attribute(folder + "/dm/uuid"); !uuid.empty()) {
    return "dm:" + uuid;
  }
  if (std::string name = Attribute(folder + "/dm/name"); !name.empty()) {
    return "dm-name:" + name;
  }
  if (std::string file = Attribute(folder + "/loop/backing_file");
      !file.empty()) {
    return "loop:" + file;
  }
  const std::string partition = Attribute(folder + "/partition");
  if (partition.empty()) {
    const std::string disk = IdentityOfDisk(folder);
    return disk.empty() ? "name:" + kernel_name : disk;
  }
  const std::string disk = IdentityOfDisk(real.parent_path());
  const std::string uuid = PartitionUuid(path);
  return (disk.empty() ? "name:" + kernel_name : disk + "-part" + partition) +
         (uuid.empty() ? std::string() : "+" + uuid);
}

std::string PlaceOf(const std::string& path) {
  const std::string boot = Attribute("/proc/sys/kernel/random/boot_id");
  struct stat facts {};
  if (boot.empty() || ::stat(path.c_str(), &facts) != 0) return "";
  if (S_ISBLK(facts.st_mode)) {
    return boot + " block " + std::to_string(major(facts.st_rdev)) + ":" +
           std::to_string(minor(facts.st_rdev));
  }
  return boot + " file " + std::to_string(facts.st_dev) + ":" +
         std::to_string(facts.st_ino);
}

absl::StatusOr<std::string> FindSignature(const std::string& path) {
  const Probe probe = OpenProbe(path);
  if (probe == nullptr) {
    return PosixError(errno, path + ": can't be opened to look what is on it");
  }
  ::blkid_probe_enable_superblocks(probe.get(), 1);
  ::blkid_probe_enable_partitions(probe.get(), 1);
  ::blkid_probe_set_superblocks_flags(probe.get(), BLKID_SUBLKS_TYPE);
  // 0: something, 1: nothing, -2: several things at once.
  const int result = ::blkid_do_safeprobe(probe.get());
  if (result == -2) return std::string("more than one signature");
  if (result < 0) {
    return Error(Reason::kIo, path + ": libblkid can't read it");
  }
  if (result == 1) return std::string();
  for (const char* key : {"TYPE", "PTTYPE"}) {
    const char* value = nullptr;
    if (::blkid_probe_lookup_value(probe.get(), key, &value, nullptr) == 0 &&
        value != nullptr) {
      return std::string(value);
    }
  }
  return std::string("an unnamed signature");
}

}  // namespace snapsync
