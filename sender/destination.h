// SPDX-License-Identifier: Apache-2.0
//
// --dst: [user@]HOST:VOLUME. VOLUME is a name from the agent's configuration,
// or the path of a device that it grants. An IPv6 address stands in brackets.
#ifndef SNAPSYNC_SENDER_DESTINATION_H_
#define SNAPSYNC_SENDER_DESTINATION_H_

#include <string>

#include "absl/status/statusor.h"

namespace snapsync {

struct Destination {
  std::string user;  // empty: none given
  std::string host;
  std::string volume;
};

// kUsage.
absl::StatusOr<Destination> ParseDestination(const std::string& text);

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_DESTINATION_H_
