// SPDX-License-Identifier: Apache-2.0
//
// The delta by comparing: the agent hashes what its volume holds, this side
// hashes the source, block by block (common/transfer/block_hashes.h), and what
// differs is sent. Needs no trusted base and no metadata, only reads.
#ifndef SNAPSYNC_SENDER_HASH_DELTA_H_
#define SNAPSYNC_SENDER_HASH_DELTA_H_

#include <functional>

#include "absl/status/statusor.h"
#include "common/base/id128.h"
#include "common/block/block_device.h"
#include "common/block/extent.h"
#include "common/transfer/session_protocol.h"
#include "sender/agent_client.h"

namespace snapsync {

struct HashDelta {
  Id128 base;          // what the target holds; none: only in a dry run
  ExtentList changed;  // mapped blocks that differ
  ExtentList gone;     // blocks that are not mapped, and not zero there
};

// Of request.source_size bytes of `source`, of which only `mapped` is read: the
// rest is zeroes. Reads run beside the agent's. Errors: the agent's, the
// reader's; kConnection "interrupted" when `interrupted` says so; kOther for an
// answer that leaves blocks out.
absl::StatusOr<HashDelta> CompareByHash(
    AgentClient& agent, const HashRequest& request, BlockReader& source,
    const ExtentList& mapped, bool read_ahead,
    const std::function<bool()>& interrupted);

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_HASH_DELTA_H_
