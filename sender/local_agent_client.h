// SPDX-License-Identifier: Apache-2.0
//
// A target on this host as an agent without a network: the agent's own code
// (registry, session, journal, stage and commit) called directly, so that a
// local sync is what a remote one is. Its state is in a folder of its own,
// STATE/local/PATH, one for each target; two syncs to one target exclude each
// other, others run side by side.
//
// An agent of this host that has the same target in its configuration keeps a
// record of its own; the target's seal tells each of the other's writes.
#ifndef SNAPSYNC_SENDER_LOCAL_AGENT_CLIENT_H_
#define SNAPSYNC_SENDER_LOCAL_AGENT_CLIENT_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "sender/agent_client.h"

namespace snapsync {

// Of the target at `path`, whatever it is: thin volume, block device, file or
// nothing yet (a file); `is_image`: a QCOW2 image, which is never guessed.
// kBusy when another sync writes to it, kTargetUnsuitable for a directory and
// the like. Calls name it by `path`.
absl::StatusOr<std::unique_ptr<AgentClient>> MakeLocalAgentClient(
    const std::string& state_directory, const std::string& path, bool is_image);

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_LOCAL_AGENT_CLIENT_H_
