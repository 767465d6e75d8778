// SPDX-License-Identifier: Apache-2.0
//
// snapsync-send: sends what changed on a thin volume to a remote agent.
#include <iostream>
#include <string>
#include <utility>

#include "common/base/error.h"
#include "sender/delta_command.h"
#include "sender/grpc_revert_command.h"
#include "sender/grpc_sync_command.h"
#include "sender/options.h"

namespace {

int Fail(const absl::Status& status) {
  std::cerr << "snapsync-send: " << snapsync::MessageOf(status) << "\n";
  return snapsync::ExitCode(status);
}

}  // namespace

int main(int argc, char** argv) {
  absl::StatusOr<snapsync::Command> command =
      snapsync::ParseCommandLine(argc, argv);
  if (!command.ok()) return Fail(command.status());
  if (const auto* text = std::get_if<std::string>(&*command)) {
    std::cout << *text;
    return 0;
  }
  if (auto* sync = std::get_if<snapsync::SyncCommand>(&*command)) {
    return snapsync::RunSyncCommand(std::move(*sync));
  }
  if (const auto* revert = std::get_if<snapsync::RevertCommand>(&*command)) {
    return snapsync::RunRevertCommand(*revert);
  }
  const absl::Status status = snapsync::RunDelta(
      std::get<snapsync::DeltaOptions>(*command), std::cout, std::cerr);
  return status.ok() ? 0 : Fail(status);
}
