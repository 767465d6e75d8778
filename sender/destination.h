// SPDX-License-Identifier: Apache-2.0
//
// --dst: [user@]HOST:VOLUME, or a path on this host (it starts with '/' or
// '.'). VOLUME is a name from the agent's configuration, or the path of a
// device that it grants. An IPv6 address stands in brackets.
#ifndef SNAPSYNC_SENDER_DESTINATION_H_
#define SNAPSYNC_SENDER_DESTINATION_H_

#include <string>

#include "absl/status/statusor.h"

namespace snapsync {

struct Destination {
  std::string user;  // empty: none given
  std::string host;  // empty: this one
  std::string volume;

  bool local() const { return host.empty(); }
};

// kUsage.
absl::StatusOr<Destination> ParseDestination(const std::string& text);

// One name for all paths of a local target that stay the same over a reboot:
// "/dev/mapper/NAME" for a device-mapper device, "/dev/mapper/..." of LVM's for
// an inactive volume, else the absolute path without links.
std::string StablePath(const std::string& path);

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_DESTINATION_H_
