// SPDX-License-Identifier: Apache-2.0
//
// The command line of snapsync-send, together with the configuration file:
// flags win over SNAPSYNC_CONFIG's or --config's keys.
#ifndef SNAPSYNC_SENDER_OPTIONS_H_
#define SNAPSYNC_SENDER_OPTIONS_H_

#include <optional>
#include <string>
#include <variant>

#include "absl/status/statusor.h"
#include "sender/config.h"
#include "sender/delta_command.h"
#include "sender/destination.h"
#include "sender/sync.h"

namespace snapsync {

struct SyncCommand {
  SenderConfig config;
  Destination destination;
  SyncOptions sync;  // without the pump's functions
  bool json = false;
  std::vector<std::string> warnings;  // about the command line
};

// What to do; a text: print it and exit with 0 (--help, --version).
using Command = std::variant<SyncCommand, DeltaOptions, std::string>;

// kUsage for a bad command line, kConfiguration for a bad file.
absl::StatusOr<Command> ParseCommandLine(int argc, const char* const* argv);

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_OPTIONS_H_
