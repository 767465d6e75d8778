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
#include <vector>

#include "common/base/digest.h"
#include "common/base/id128.h"
#include "common/block/extent.h"

namespace snapsync {

// Chunks in one segment at most; a sender ends a segment earlier when a few
// seconds have passed, so that a slow link loses little.
inline constexpr uint64_t kSegmentChunks = 64;

// Hashes in one message at most: of 16 MiB of the volume.
inline constexpr size_t kHashBatchBlocks = 256;

// How an image is to be written (QCOW2). What is not given, the image has
// already, or the target's default.
struct ExportOptions {
  uint64_t virtual_size = 0;  // bytes; 0: at least that of the source
  uint64_t cluster_size = 0;  // bytes; 0: not given
  std::string compression;    // none, zlib, zstd; empty: not given
  bool chain = false;         // a new overlay for each generation
  uint64_t keep = 0;          // generations of a chain; 0: not given

  bool given() const { return *this != ExportOptions{}; }
  friend bool operator==(const ExportOptions&, const ExportOptions&) = default;
};

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
  // The most that the plan's data take of the target's room, in whole units of
  // allocation there; 0: not known before it was read.
  uint64_t new_bytes = 0;
  // What is written is not read back before it counts.
  bool no_verify = false;
  ExportOptions image;
};

struct SessionGrant {
  Id128 session{};  // names this opening; an older one of the plan is void
  uint64_t watermark = 0;  // chunks [0, watermark) are durable on the agent
  Digest256 digest{};      // over those chunks
  bool committed = false;  // nothing to do: the plan was committed before
  uint64_t number = 0;     // of the generation, when committed
};

// Asks for the hashes of a target's blocks (block_hashes.h), and with them for
// the generation that they are of: the base of a plan that is made by
// comparing.
struct HashRequest {
  std::string volume;
  std::string replication;
  std::string source;        // for people: host and path
  uint64_t source_size = 0;  // bytes: hashes are of as many
  // The operator agreed to overwrite what is on the target: what it holds
  // becomes a generation of this replication if it is not one already.
  bool allow_overwrite = false;
  // Nothing may be written, not even a record: where a generation would have to
  // be made there is none.
  bool dry_run = false;
  // Those before were compared already, before a connection was lost.
  uint64_t first_block = 0;
};

// Asks what a target changed since one of `candidates`.
struct ChangesRequest {
  static constexpr size_t kMaxCandidates = 1024;
  HashRequest target;
  std::vector<Id128> candidates;  // generations, the best base first
};

struct Changes {
  Id128 generation;    // that the target holds: the base to name in the plan
  Id128 common;        // the candidate that was taken
  ExtentList extents;  // in which the two may differ
};

// A part of the answer.
struct HashBatch {
  Id128 generation;  // in the first part; none: only for a dry run
  uint64_t first_block = 0;
  std::vector<Digest256> digests;
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

// A generation that a volume was at.
struct GenerationState {
  Id128 generation;
  uint64_t number = 0;
  uint64_t size = 0;         // bytes
  int64_t unix_seconds = 0;  // of its commit, by the agent's clock
  bool retained = false;     // its snapshot is there still
  bool verified = false;     // all of it was read back when it was written
};

// What an agent tells about a volume.
struct VolumeState {
  std::string name;
  std::string kind;   // thin, block, file, qcow2
  std::string state;  // empty, at, filling, committing, torn
  std::string place;  // PlaceOf() it (common/block/device_identity.h)
  uint64_t size = 0;  // bytes
  bool blank = false;
  bool grows = false;  // takes a source of any size
  // Bytes: the block of the pool that it is in; 0: it is in none.
  uint64_t allocation_unit = 0;
  std::string replication;  // empty: none yet
  Id128 generation;         // that it is at, or was before the open session
  uint64_t number = 0;
  bool promoted = false;  // is written to there, and receives nothing
  std::vector<GenerationState> generations;  // oldest first
  std::string problem;     // why it can't be written to now; empty: it can
  int problem_reason = 0;  // its Reason, 0 without a problem
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_TRANSFER_SESSION_PROTOCOL_H_
