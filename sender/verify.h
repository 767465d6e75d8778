// SPDX-License-Identifier: Apache-2.0
//
// Whether a replica holds what was sent: both sides are read whole and compared
// by SHA-256, whatever metadata and records say. Writes to no volume,
// unless it is to repair; a commit that a crash interrupted is finished by the
// agent first.
#ifndef SNAPSYNC_SENDER_VERIFY_H_
#define SNAPSYNC_SENDER_VERIFY_H_

#include <cstdint>

#include "absl/status/status.h"
#include "common/block/extent.h"
#include "sender/agent_client.h"
#include "sender/sync.h"

namespace snapsync {

struct VerifyResult {
  // equal, different, repaired; empty on any error
  std::string result;
  uint64_t compared_bytes = 0;
  ExtentList different;  // as it was before it was repaired
  SyncResult sync;       // of the repair; its generation else
};

// Of `options`, --src, --dst and --uuid count as for RunSync(). Of an origin
// the snapshot is compared that the last sync sent: kBaseMismatch when the
// replica does not hold that generation. kTargetUnsuitable when the volume is
// not this replication's, or another device. kVerification when something
// differs, and was not, or could not be, repaired. What is known is in `result`
// in any case.
absl::Status RunVerify(const SyncOptions& options, bool repair,
                       AgentClient& agent, VerifyResult& result);

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_VERIFY_H_
