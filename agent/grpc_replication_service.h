// SPDX-License-Identifier: Apache-2.0
//
// The Replication service on gRPC: who calls, may they, what do they want, and
// over to the Replica. Nothing is decided here. Synchronous API: one thread a
// call; thread-safe.
#ifndef SNAPSYNC_AGENT_GRPC_REPLICATION_SERVICE_H_
#define SNAPSYNC_AGENT_GRPC_REPLICATION_SERVICE_H_

#include <chrono>
#include <string>

#include "absl/status/statusor.h"
#include "agent/grpc_gate.h"
#include "agent/tickets.h"
#include "common/base/mutex.h"
#include "common/base/rate_limiter.h"
#include "common/wire/call_watchdog.h"
#include "snapsync/v1/replication.grpc.pb.h"

namespace snapsync {

class GrpcReplicationService final : public v1::Replication::Service {
 public:
  // All must outlive it. `timeout`: a stream in which nothing has come for so
  // long is ended; 0: never. `bytes_per_second` holds all peers together to a
  // rate; 0: no limit.
  GrpcReplicationService(const GrpcGate* gate, Tickets* tickets,
                         std::chrono::seconds timeout,
                         uint64_t bytes_per_second)
      : gate_(gate),
        tickets_(tickets),
        watchdog_(timeout),
        limiter_(bytes_per_second) {}

  grpc::Status OpenSession(grpc::ServerContext* context,
                           const v1::OpenSessionRequest* request,
                           v1::OpenSessionResponse* response) override;
  grpc::Status Push(grpc::ServerContext* context,
                    grpc::ServerReader<v1::PushRequest>* reader,
                    v1::PushResponse* response) override;
  grpc::Status CommitSession(grpc::ServerContext* context,
                             const v1::CommitSessionRequest* request,
                             v1::CommitSessionResponse* response) override;
  grpc::Status AbortSession(grpc::ServerContext* context,
                            const v1::AbortSessionRequest* request,
                            v1::AbortSessionResponse* response) override;
  grpc::Status HashBlocks(
      grpc::ServerContext* context, const v1::HashBlocksRequest* request,
      grpc::ServerWriter<v1::HashBlocksResponse>* writer) override;
  grpc::Status ChangedSince(
      grpc::ServerContext* context, const v1::ChangedSinceRequest* request,
      grpc::ServerWriter<v1::ChangedSinceResponse>* writer) override;

 private:
  absl::StatusOr<SessionGrant> Open(const grpc::ServerContext& context,
                                    const v1::OpenSessionRequest& message);
  absl::StatusOr<SegmentAck> Receive(
      grpc::ServerContext& context,
      grpc::ServerReader<v1::PushRequest>& reader);
  absl::StatusOr<Receipt> Commit(const grpc::ServerContext& context,
                                 const v1::CommitSessionRequest& message);
  absl::Status Hash(grpc::ServerContext& context,
                    const v1::HashBlocksRequest& message,
                    grpc::ServerWriter<v1::HashBlocksResponse>& writer);
  absl::Status TellChanges(
      grpc::ServerContext& context, const v1::ChangedSinceRequest& message,
      grpc::ServerWriter<v1::ChangedSinceResponse>& writer);
  void WaitForTurn(uint64_t bytes);

  const GrpcGate* const gate_;
  Tickets* const tickets_;
  wire::CallWatchdog watchdog_;
  Mutex mutex_;
  RateLimiter limiter_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_GRPC_REPLICATION_SERVICE_H_
