// SPDX-License-Identifier: Apache-2.0
//
// What the agent knows of a target across restarts: which device it is, which
// generation it holds, and the session that is filling it. One state file per
// volume; docs/formats.md has the text form.
//
// Invariants, in the order in which the agent writes (docs/reliability.md):
//   kFilling/kTorn is durable before the stage exists or a byte is written,
//   the stage's token before the first chunk is taken,
//   kCommitting before the target is switched, kAt after it is.
#ifndef SNAPSYNC_AGENT_TARGET_RECORD_H_
#define SNAPSYNC_AGENT_TARGET_RECORD_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/digest.h"
#include "common/base/id128.h"
#include "common/transfer/session_protocol.h"

namespace snapsync {

enum class TargetState {
  kEmpty,       // no generation yet
  kAt,          // holds `generation`
  kFilling,     // holds `generation` (or nothing yet); a stage is being written
  kTorn,        // written in place, between `generation` and the session's
  kCommitting,  // the stage is whole; the switch may or may not have happened
};

std::string_view NameOf(TargetState state);

// The plan that is being filled in, as its first OpenSession gave it.
struct SessionRecord {
  Id128 id;  // of the plan's records in the journal
  Id128 base;
  Id128 generation;
  std::string replication;
  std::string source;
  std::string owner;  // the peer's name
  uint64_t source_size = 0;
  Digest256 plan_digest{};
  uint64_t chunk_count = 0;
  ExportOptions image;
  bool verified = false;  // all that is durable was read back
  std::string stage;      // the target's token; empty until the stage exists
};

// A committed generation, newest last: answers a sender that lost the reply,
// and lists what can be gone back to.
struct GenerationRecord {
  Id128 generation;
  uint64_t number = 0;
  uint64_t source_size = 0;
  Digest256 plan_digest{};
  int64_t committed_unix_seconds = 0;  // for people only
  bool verified = false;               // was read back when it was written
};

struct TargetRecord {
  static constexpr size_t kGenerationsKept = 16;

  std::string identity;  // TargetFacts::identity
  TargetState state = TargetState::kEmpty;
  std::string replication;  // empty until the first commit
  Id128 generation;
  uint64_t number = 0;
  std::string seal;
  ExportOptions image;  // as the last commit left it
  // Written to by this host's own users: receives nothing.
  bool promoted = false;
  std::optional<SessionRecord> session;
  std::vector<GenerationRecord> generations;
};

// The text of a state file, and back. `path` is for errors.
std::string EncodeTargetRecord(const TargetRecord& record);
absl::StatusOr<TargetRecord> DecodeTargetRecord(const std::string& path,
                                                std::string_view contents);

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_TARGET_RECORD_H_
