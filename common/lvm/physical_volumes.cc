// SPDX-License-Identifier: Apache-2.0
#include "common/lvm/physical_volumes.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <set>

#include "common/base/error.h"
#include "common/base/first_line.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"

namespace snapsync {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> NamesIn(const std::string& folder,
                                 std::error_code& error) {
  std::vector<std::string> names;
  fs::directory_iterator at(folder, error);
  while (!error && at != fs::directory_iterator()) {
    names.push_back(at->path().filename());
    at.increment(error);
  }
  return names;
}

// Opens the node of a device by its kernel name, and makes sure it is that
// device: without udev, /dev may be out of date.
absl::StatusOr<UniqueFd> OpenByKernelName(const std::string& name) {
  const std::string number = FirstLine("/sys/class/block/" + name + "/dev");
  const std::string mapped = FirstLine("/sys/class/block/" + name + "/dm/name");
  std::string path = "/dev/" + name;
  for (char& letter : path) {
    if (letter == '!') letter = '/';  // as in "cciss!c0d0"
  }
  for (const std::string& candidate : {path, "/dev/mapper/" + mapped}) {
    UniqueFd fd(::open(candidate.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat facts {};
    if (fd.valid() && ::fstat(fd.get(), &facts) == 0 &&
        S_ISBLK(facts.st_mode) &&
        std::to_string(major(facts.st_rdev)) + ":" +
                std::to_string(minor(facts.st_rdev)) ==
            number) {
      return fd;
    }
  }
  return Error(Reason::kIo, "physical volume " + path +
                                " can't be opened to flush it: no such node "
                                "of device " +
                                number);
}

}  // namespace

absl::StatusOr<std::vector<std::string>> FindPhysicalVolumes(
    const std::string& group_uuid, const std::string& sysfs) {
  std::string prefix = group_uuid;
  std::erase(prefix, '-');
  prefix = "LVM-" + prefix;
  const std::string block = sysfs + "/class/block/";
  const auto in_group = [&](const std::string& device) {
    return FirstLine(block + device + "/dm/uuid").starts_with(prefix);
  };
  std::error_code error;
  std::set<std::string> found;
  for (const std::string& device : NamesIn(block, error)) {
    if (!device.starts_with("dm-") || !in_group(device)) continue;
    // Layers of the group (a pool's data, a mirror's leg) are in the list
    // themselves; what lies below the last of them is a physical volume.
    std::error_code gone_meanwhile;
    for (const std::string& below :
         NamesIn(block + device + "/slaves", gone_meanwhile)) {
      if (!in_group(below)) found.insert(below);
    }
  }
  if (error) {
    return PosixError(error.value(), block + " can't be read");
  }
  return std::vector<std::string>(found.begin(), found.end());
}

absl::Status FlushPhysicalVolumes(const std::string& group_uuid) {
  SNAPSYNC_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                            FindPhysicalVolumes(group_uuid));
  for (const std::string& name : names) {
    SNAPSYNC_ASSIGN_OR_RETURN(const UniqueFd fd, OpenByKernelName(name));
    if (::fsync(fd.get()) != 0) {
      return PosixError(errno, "physical volume " + name + ": flush failed");
    }
  }
  return absl::OkStatus();
}

}  // namespace snapsync
