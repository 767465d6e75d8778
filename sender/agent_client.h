// SPDX-License-Identifier: Apache-2.0
//
// An agent, as the sender sees it: a port. Over the network by
// grpc_agent_client.h, in the simulation directly on an agent::Replica.
//
// Errors carry the agent's reason; kConnection means that trying again, after
// opening the session again, may help. Calls are made by one thread at a time,
// but for Cancel().
#ifndef SNAPSYNC_SENDER_AGENT_CLIENT_H_
#define SNAPSYNC_SENDER_AGENT_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/error.h"
#include "common/transfer/chunk.h"
#include "common/transfer/session_protocol.h"

namespace snapsync {

// A segment on its way. Several may be open at a time: one being written, the
// earlier ones waiting for the agent's flush. Destroyed early, it is cancelled.
class SegmentStream {
 public:
  virtual ~SegmentStream() = default;

  // The chunk's data is not used after the call. False: the stream is broken,
  // and Finish() says why.
  virtual bool Write(const Chunk& chunk) = 0;
  // No more chunks: the agent begins to make the segment durable.
  virtual void CloseWrites() = 0;
  // Waits until the segment is durable.
  virtual absl::StatusOr<SegmentAck> Finish() = 0;
};

// Takes the hashes of blocks [first_block, first_block + digests.size()) of
// `generation`, which come in order. An error ends the call.
using HashSink =
    std::function<absl::Status(const Id128& generation, uint64_t first_block,
                               std::span<const Digest256> digests)>;

class AgentClient {
 public:
  virtual ~AgentClient() = default;

  virtual absl::StatusOr<VolumeState> Describe(const std::string& volume) = 0;
  virtual absl::StatusOr<SessionGrant> OpenSession(
      const SessionRequest& request) = 0;
  virtual absl::StatusOr<std::unique_ptr<SegmentStream>> StartSegment(
      const std::string& volume, const Id128& session, uint64_t first) = 0;
  virtual absl::StatusOr<Receipt> CommitSession(
      const CommitRequest& request) = 0;
  // Gives the session that is open into the volume up. kOther where there is
  // no such call.
  virtual absl::Status AbortSession(const std::string& /*volume*/) {
    return Error(Reason::kOther, "this target has no session to give up");
  }
  // Ends what another sender is doing with the volume.
  virtual absl::Status TakeOver(const std::string& /*volume*/) {
    return Error(Reason::kOther, "this target can't be taken over");
  }
  // Hashes of the blocks of what the volume holds, from request.first_block on,
  // and the generation that this is (see HashRequest).
  virtual absl::StatusOr<Id128> HashBlocks(const HashRequest& request,
                                           const HashSink& sink) = 0;
  // What the volume changed since a generation that both sides hold.
  // kBaseMismatch when there is none.
  virtual absl::StatusOr<Changes> ChangedSince(
      const ChangesRequest& /*request*/) {
    return Error(Reason::kBaseMismatch,
                 "the target has no metadata that tells what it changed");
  }
  // Ends all calls under way, and all later ones, with kConnection.
  // Thread-safe.
  virtual void Cancel() = 0;
};

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_AGENT_CLIENT_H_
