// SPDX-License-Identifier: Apache-2.0
#include "common/block/device_holders.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <vector>

#include "common/base/error.h"
#include "common/base/first_line.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"

namespace snapsync {
namespace {

// A device by its number, or a file by where it lies.
struct Identity {
  bool is_block = false;
  uint64_t device = 0;  // of a block device: its own number
  uint64_t inode = 0;   // of a file

  friend bool operator==(const Identity&, const Identity&) = default;
};

// statx without asking a server: one that is dead must not hang us.
std::optional<Identity> IdentifyAt(int folder, const char* path) {
  struct statx facts {};
  if (::statx(folder, path, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT,
              STATX_TYPE | STATX_INO, &facts) != 0) {
    return std::nullopt;
  }
  Identity identity;
  identity.is_block = S_ISBLK(facts.stx_mode);
  if (identity.is_block) {
    identity.device = makedev(facts.stx_rdev_major, facts.stx_rdev_minor);
  } else {
    identity.device = makedev(facts.stx_dev_major, facts.stx_dev_minor);
    identity.inode = facts.stx_ino;
  }
  return identity;
}

std::optional<Identity> Identify(const std::string& path) {
  return IdentifyAt(AT_FDCWD, path.c_str());
}

std::string NumberText(uint64_t device) {
  return std::to_string(major(device)) + ":" + std::to_string(minor(device));
}

using Folder = std::unique_ptr<DIR, int (*)(DIR*)>;

Folder OpenFolder(const std::string& path) {
  return {::opendir(path.c_str()), ::closedir};
}

// The next name in it that does not begin with a dot; nullptr at the end.
const char* NextIn(const Folder& folder) {
  if (folder == nullptr) return nullptr;
  const dirent* entry = ::readdir(folder.get());
  while (entry != nullptr && entry->d_name[0] == '.') {
    entry = ::readdir(folder.get());
  }
  return entry == nullptr ? nullptr : entry->d_name;
}

std::vector<std::string> NamesIn(const std::string& path) {
  std::vector<std::string> names;
  const Folder folder = OpenFolder(path);
  while (const char* name = NextIn(folder)) names.emplace_back(name);
  return names;
}

bool IsNumber(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return c >= '0' && c <= '9';
  });
}

// "dm-3 (vg-x)".
std::string NameOfDevice(const std::string& sysfs_folder,
                         const std::string& kernel_name) {
  const std::string mapped = FirstLine(sysfs_folder + "/dm/name");
  return mapped.empty() ? kernel_name : kernel_name + " (" + mapped + ")";
}

// See proc_pid_mountinfo(5): the third word is the device, the fifth the mount
// point, the second after " - " the source. The device of some file systems
// (btrfs) is not a disk's number; then the source tells.
std::string DescribeMount(const Identity& wanted) {
  std::ifstream file("/proc/self/mountinfo");
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string id, parent, number, root, point;
    words >> id >> parent >> number >> root >> point;
    bool found = number == NumberText(wanted.device);
    if (!found) {
      const size_t dash = line.find(" - ");
      if (dash == std::string::npos) continue;
      std::istringstream tail(line.substr(dash + 3));
      std::string type, source;
      tail >> type >> source;
      found = source.starts_with("/") &&
              Identify(UnescapeMountPath(source)) == wanted;
    }
    if (found) return "mounted on " + UnescapeMountPath(point);
  }
  return "";
}

std::string DescribeSwap(const Identity& wanted) {
  std::ifstream file("/proc/swaps");
  std::string line;
  while (std::getline(file, line)) {
    const std::string path = line.substr(0, line.find_first_of(" \t"));
    if (path.starts_with("/") && Identify(UnescapeMountPath(path)) == wanted) {
      return "in use as swap";
    }
  }
  return "";
}

std::string DescribeLoop(const Identity& wanted) {
  for (const std::string& name : NamesIn("/sys/block")) {
    if (!name.starts_with("loop")) continue;
    const std::string backing =
        FirstLine("/sys/block/" + name + "/loop/backing_file");
    if (backing.starts_with("/") && Identify(backing) == wanted) {
      return "in use by " + name;
    }
  }
  return "";
}

// Mounts, swap and devices on this block device or on its partitions.
std::string DescribeStack(const Identity& wanted, bool with_partitions) {
  if (std::string mount = DescribeMount(wanted); !mount.empty()) return mount;
  if (std::string swap = DescribeSwap(wanted); !swap.empty()) return swap;
  const std::string folder = "/sys/dev/block/" + NumberText(wanted.device);
  for (const std::string& holder : NamesIn(folder + "/holders")) {
    return "held by " + NameOfDevice("/sys/class/block/" + holder, holder);
  }
  if (!with_partitions) return "";
  for (const std::string& name : NamesIn(folder)) {
    const std::string part = folder + "/" + name;
    if (FirstLine(part + "/partition").empty()) continue;
    const std::string number = FirstLine(part + "/dev");
    const size_t colon = number.find(':');
    if (colon == std::string::npos) continue;
    Identity partition;
    partition.is_block = true;
    partition.device = makedev(
        static_cast<unsigned>(std::strtoul(number.c_str(), nullptr, 10)),
        static_cast<unsigned>(
            std::strtoul(number.c_str() + colon + 1, nullptr, 10)));
    if (std::string text = DescribeStack(partition, false); !text.empty()) {
      return "its partition " + name + " is " + text;
    }
  }
  return "";
}

// A process may have thousands: each is looked up from its folder, not from the
// root.
bool IsOpenIn(const std::string& process, const Identity& wanted) {
  const Folder folder = OpenFolder("/proc/" + process + "/fd");
  while (const char* name = NextIn(folder)) {
    if (IdentifyAt(::dirfd(folder.get()), name) == wanted) return true;
  }
  return false;
}

std::string DescribeOpen(const Identity& wanted) {
  const std::string self = std::to_string(::getpid());
  for (const std::string& process : NamesIn("/proc")) {
    if (!IsNumber(process) || process == self) continue;
    if (IsOpenIn(process, wanted)) {
      return "open in process " + process + " (" +
             FirstLine("/proc/" + process + "/comm") + ")";
    }
  }
  return "";
}

absl::StatusOr<Identity> RequireIdentity(const std::string& path) {
  const std::optional<Identity> identity = Identify(path);
  if (!identity.has_value()) {
    return PosixError(errno, path + ": can't be examined");
  }
  return *identity;
}

}  // namespace

std::string UnescapeMountPath(const std::string& text) {
  std::string path;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      const std::string octal = text.substr(i + 1, 3);
      if (octal.find_first_not_of("01234567") == std::string::npos) {
        path += static_cast<char>(std::stoi(octal, nullptr, 8));
        i += 3;
        continue;
      }
    }
    path += text[i];
  }
  return path;
}

absl::StatusOr<bool> IsOpenHere(const std::string& path) {
  SNAPSYNC_ASSIGN_OR_RETURN(const Identity wanted, RequireIdentity(path));
  return IsOpenIn("self", wanted);
}

absl::StatusOr<std::string> DescribeHolders(const std::string& path) {
  SNAPSYNC_ASSIGN_OR_RETURN(const Identity wanted, RequireIdentity(path));
  if (wanted.is_block) {
    if (std::string text = DescribeStack(wanted, true); !text.empty()) {
      return text;
    }
  } else if (std::string swap = DescribeSwap(wanted); !swap.empty()) {
    return swap;
  }
  if (std::string loop = DescribeLoop(wanted); !loop.empty()) return loop;
  if (std::string open = DescribeOpen(wanted); !open.empty()) return open;
  // What the kernel itself holds and shows nowhere: a mount in another
  // namespace, a RAID member, an exported disk.
  if (wanted.is_block && !IsOpenIn("self", wanted)) {
    const UniqueFd probe(
        ::open(path.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK));
    if (!probe.valid() && errno == EBUSY) {
      return "held by the kernel (mounted elsewhere, a RAID member, or "
             "exported)";
    }
  }
  return std::string();
}

}  // namespace snapsync
