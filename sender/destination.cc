// SPDX-License-Identifier: Apache-2.0
#include "sender/destination.h"

#include "common/base/error.h"

namespace snapsync {

absl::StatusOr<Destination> ParseDestination(const std::string& text) {
  const auto refuse = [&text] {
    return Error(Reason::kUsage, "--dst \"" + text +
                                     "\": write HOST:VOLUME, where VOLUME is "
                                     "a volume in the agent's configuration");
  };
  Destination destination;
  std::string rest = text;
  if (rest.empty() || rest[0] == '/') return refuse();
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

}  // namespace snapsync
