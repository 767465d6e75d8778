// SPDX-License-Identifier: Apache-2.0
//
// One sync, from --src to an agent's volume: snapshot, plan, session, commit,
// and the record for next time. Run again after any interruption, it goes on
// with the snapshot that it had.
#ifndef SNAPSYNC_SENDER_SYNC_H_
#define SNAPSYNC_SENDER_SYNC_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "sender/agent_client.h"
#include "sender/pump.h"
#include "sender/replication_state.h"
#include "sender/source.h"

namespace snapsync {

struct SyncOptions {
  SourceOptions source;
  std::string destination;      // as given: names the replication with --uuid
  std::string volume;           // its part that the agent knows
  std::string replication;      // --uuid
  std::string method = "auto";  // --method
  bool overwrite = false;       // --yes, --allow-full
  bool allow_full = false;
  bool dry_run = false;
  bool take_over = false;      // from another sender
  bool no_verify = false;      // what is written is not read back
  ExportOptions image;         // how an image is written
  bool to_image = false;       // --dst is to be one
  bool save_mappings = false;  // for when the base is gone (saved_base.h)
  PumpOptions pump;
};

struct SyncResult {
  std::string result;  // ok, unchanged, dry-run, error
  std::string method;
  std::string why;
  Id128 generation;  // that the target holds now
  uint64_t number = 0;
  uint64_t data_bytes = 0;  // planned: changed extents that were not zero
  uint64_t zero_bytes = 0;  // planned as data, found to be zero
  uint64_t gone_bytes = 0;
  uint64_t sent_bytes = 0;
  uint64_t resumed_from_bytes = 0;
  double seconds = 0;
  std::vector<std::string> warnings;
};

// What is known is in `result` even when it fails.
absl::Status RunSync(const SyncOptions& options, AgentClient& agent,
                     SyncResult& result);

// The same for who has the replication's lock already.
absl::Status RunSync(const SyncOptions& options, ReplicationStore store,
                     AgentClient& agent, SyncResult& result);

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_SYNC_H_
