// SPDX-License-Identifier: Apache-2.0
//
// Protobuf messages to the domain's types and back: the only place where both
// are known. All checks of what came in are here: lengths of identifiers and
// texts, ranges, enumerations. What comes out is in range; whether it makes
// sense (order, bounds, rights) is the domain's business.
//
// A message that can't be is kOther: a fault of the peer, not of the operator.
#ifndef SNAPSYNC_COMMON_WIRE_CONVERT_H_
#define SNAPSYNC_COMMON_WIRE_CONVERT_H_

#include "absl/status/statusor.h"
#include "common/transfer/chunk.h"
#include "common/transfer/scrub_progress.h"
#include "common/transfer/session_protocol.h"
#include "snapsync/v1/agent.pb.h"
#include "snapsync/v1/replication.pb.h"
#include "snapsync/v1/types.pb.h"

namespace snapsync::wire {

v1::OpenSessionRequest ToProto(const SessionRequest& request);
// Also settles the protocol's version.
absl::StatusOr<SessionRequest> FromProto(const v1::OpenSessionRequest& message);

v1::OpenSessionResponse ToProto(const SessionGrant& grant);
absl::StatusOr<SessionGrant> FromProto(const v1::OpenSessionResponse& message);

// Fills `message`, whose memory is used again from chunk to chunk.
void ToProto(const Chunk& chunk, v1::PushRequest& message);
// The chunk's data point into `message`.
absl::StatusOr<Chunk> FromProto(const v1::PushRequest& message);
// The session that the first message of a stream names.
absl::StatusOr<Id128> SessionOf(const v1::PushRequest& message);

v1::PushResponse ToProto(const SegmentAck& ack);
absl::StatusOr<SegmentAck> FromProto(const v1::PushResponse& message);

v1::CommitSessionRequest ToProto(const CommitRequest& request);
absl::StatusOr<CommitRequest> FromProto(
    const v1::CommitSessionRequest& message);

v1::CommitSessionResponse ToProto(const Receipt& receipt);
absl::StatusOr<Receipt> FromProto(const v1::CommitSessionResponse& message);

v1::HashBlocksRequest ToProto(const HashRequest& request);
// Also settles the protocol's version.
absl::StatusOr<HashRequest> FromProto(const v1::HashBlocksRequest& message);

v1::HashBlocksResponse ToProto(const HashBatch& batch);
absl::StatusOr<HashBatch> FromProto(const v1::HashBlocksResponse& message);

v1::ChangedSinceRequest ToProto(const ChangesRequest& request);
// Also settles the protocol's version.
absl::StatusOr<ChangesRequest> FromProto(
    const v1::ChangedSinceRequest& message);

// Extents of `changes` from index `first` on, as many as go into one message,
// and, with the first ones, its generations.
v1::ChangedSinceResponse ToProto(const Changes& changes, size_t first);
// Adds a part of the answer to `changes`.
absl::Status Append(const v1::ChangedSinceResponse& message, Changes& changes);

v1::Volume ToProto(const VolumeState& state);
absl::StatusOr<VolumeState> FromProto(const v1::Volume& message);

v1::ScrubResponse ToProto(const ScrubProgress& progress);
absl::StatusOr<ScrubProgress> FromProto(const v1::ScrubResponse& message);

}  // namespace snapsync::wire

#endif  // SNAPSYNC_COMMON_WIRE_CONVERT_H_
