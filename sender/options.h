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
#include "common/base/id128.h"
#include "sender/config.h"
#include "sender/delta_command.h"
#include "sender/destination.h"
#include "sender/sync.h"

namespace snapsync {

struct SyncCommand {
  std::string name = "sync";  // of the subcommand
  SenderConfig config;
  Destination destination;
  SyncOptions sync;     // without the pump's functions
  bool verify = false;  // compare only
  bool repair = false;  // and send what differs
  bool abort = false;   // give the interrupted sync up
  bool json = false;
  std::vector<std::string> warnings;  // about the command line
};

// Bring a volume back: the agent at the source sends to the agent at the
// target.
struct RevertCommand {
  std::string name = "revert";  // of the subcommand: "revert" or "import"
  SenderConfig config;
  Destination source;
  Destination target;
  int source_port = 0;
  uint64_t number = 0;  // generation; 0, and no `generation`: what is there now
  Id128 generation;
  std::string replication;
  std::string method = "auto";
  bool allow_full = false;
  bool yes = false;
  bool dry_run = false;
  bool list = false;
  bool json = false;
  std::vector<std::string> warnings;
};

// What to do; a text: print it and exit with 0 (--help, --version).
using Command =
    std::variant<SyncCommand, RevertCommand, DeltaOptions, std::string>;

// kUsage for a bad command line, kConfiguration for a bad file.
absl::StatusOr<Command> ParseCommandLine(int argc, const char* const* argv);

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_OPTIONS_H_
