// SPDX-License-Identifier: Apache-2.0
#include "sender/destination.h"

#include <filesystem>

#include "common/base/atomic_file.h"
#include "common/base/error.h"
#include "common/lvm/lvm.h"

namespace snapsync {
namespace {

// As device-mapper names a volume of LVM.
std::string MapperPath(const LogicalVolumeName& volume) {
  const auto doubled = [](const std::string& text) {
    std::string result;
    for (const char c : text) result += c == '-' ? "--" : std::string(1, c);
    return result;
  };
  return "/dev/mapper/" + doubled(volume.group) + "-" + doubled(volume.name);
}

}  // namespace

absl::StatusOr<Destination> ParseDestination(const std::string& text) {
  const auto refuse = [&text] {
    return Error(Reason::kUsage, "--dst \"" + text +
                                     "\": write HOST:VOLUME, where VOLUME is "
                                     "a volume in the agent's configuration, "
                                     "or /PATH on this host");
  };
  Destination destination;
  std::string rest = text;
  if (rest.empty()) return refuse();
  if (rest[0] == '/' || rest[0] == '.') {
    destination.volume = rest;
    return destination;
  }
  if (const size_t at = rest.find('@'); at != std::string::npos) {
    destination.user = rest.substr(0, at);
    rest.erase(0, at + 1);
  }
  size_t colon = rest.find(':');
  if (!rest.empty() && rest[0] == '[') {
    const size_t bracket = rest.find("]:");
    if (bracket == std::string::npos) return refuse();
    destination.host = rest.substr(1, bracket - 1);
    colon = bracket + 1;
  } else if (colon != std::string::npos) {
    destination.host = rest.substr(0, colon);
  }
  if (colon == std::string::npos) return refuse();
  destination.volume = rest.substr(colon + 1);
  if (destination.host.empty() || destination.volume.empty()) return refuse();
  return destination;
}

std::string StablePath(const std::string& path) {
  std::error_code error;
  const std::filesystem::path real =
      std::filesystem::weakly_canonical(path, error);
  if (error) return path;
  const std::string node = real.filename().string();
  if (real.parent_path() == "/dev" && node.starts_with("dm-")) {
    const absl::StatusOr<std::string> name =
        ReadWholeFile("/sys/class/block/" + node + "/dm/name");
    if (name.ok()) return "/dev/mapper/" + name->substr(0, name->find('\n'));
  }
  if (path.starts_with("/dev/") && !std::filesystem::exists(real, error)) {
    const absl::StatusOr<LogicalVolumeName> volume = ParseVolumePath(path);
    if (volume.ok()) return MapperPath(*volume);
  }
  return real.string();
}

}  // namespace snapsync
