// SPDX-License-Identifier: Apache-2.0
//
// What sender and agent say to each other, in the terms of the domain: the
// wire (common/wire) carries these, a local sync and the simulation hand them
// over directly.
//
// A session: OpenSession → segments of chunks → CommitSession. Opening is
// idempotent: the same plan again goes on at the watermark, and after the
// commit it answers that it is committed. Committing is idempotent.
#ifndef SNAPSYNC_COMMON_TRANSFER_SESSION_PROTOCOL_H_
#define SNAPSYNC_COMMON_TRANSFER_SESSION_PROTOCOL_H_

#include <cstdint>
#include <string>

#include "common/base/digest.h"
#include "common/base/id128.h"

namespace snapsync {

// Chunks in one segment at most; a sender ends a segment earlier when a few
// seconds have passed, so that a slow link loses little.
inline constexpr uint64_t kSegmentChunks = 64;

struct SessionRequest {
  std::string volume;        // the name in the agent's configuration
  std::string replication;   // --uuid
  std::string source;        // for people: host and path
  Id128 base;                // the generation the delta starts from; none: full
  Id128 generation;          // the one that the commit makes
  uint64_t source_size = 0;  // bytes
  Digest256 plan_digest{};
  // 0 with `generation` equal to `base`: nothing to send, only the base is to
  // be proven; the answer is then that it is committed.
  uint64_t chunk_count = 0;
  // The plan leaves no byte of the source's size out: it may go into a target
  // with any contents.
  bool covers_all = false;
  // The operator agreed to overwrite what is on the target.
  bool allow_overwrite = false;
};

struct SessionGrant {
  Id128 session;  // names this opening; an older one of the plan is void
  uint64_t watermark = 0;  // chunks [0, watermark) are durable on the agent
  Digest256 digest{};      // over those chunks
  bool committed = false;  // nothing to do: the plan was committed before
  uint64_t number = 0;     // of the generation, when committed
};

struct SegmentAck {
  uint64_t watermark = 0;
  Digest256 digest{};
};

struct CommitRequest {
  std::string volume;
  Id128 session;
  uint64_t chunk_count = 0;
  Digest256 digest{};
};

struct Receipt {
  Id128 generation;
  uint64_t number = 0;  // counts the generations of this target: NAME.gN
};

// What an agent tells about a volume.
struct VolumeState {
  std::string name;
  std::string kind;   // thin, block, file
  std::string state;  // empty, at, filling, committing, torn
  uint64_t size = 0;  // bytes
  bool blank = false;
  bool grows = false;       // takes a source of any size
  std::string replication;  // empty: none yet
  Id128 generation;         // that it is at, or was before the open session
  uint64_t number = 0;
  std::string problem;     // why it can't be written to now; empty: it can
  int problem_reason = 0;  // its Reason, 0 without a problem
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_TRANSFER_SESSION_PROTOCOL_H_
