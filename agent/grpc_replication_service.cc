// SPDX-License-Identifier: Apache-2.0
#include "agent/grpc_replication_service.h"

#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "common/wire/convert.h"
#include "common/wire/status.h"

namespace snapsync {
namespace {

// Ends a call: logs a failure, and turns it into gRPC's form.
grpc::Status End(const char* call, const absl::Status& status) {
  if (!status.ok()) {
    Log(Severity::kWarning,
        std::string(call) + ": " + std::string(MessageOf(status)));
  }
  return wire::ToGrpc(status);
}

}  // namespace

grpc::Status GrpcReplicationService::OpenSession(
    grpc::ServerContext* context, const v1::OpenSessionRequest* request,
    v1::OpenSessionResponse* response) {
  const absl::StatusOr<SessionGrant> grant = Open(*context, *request);
  if (grant.ok()) *response = wire::ToProto(*grant);
  return End("open session", grant.status());
}

absl::StatusOr<SessionGrant> GrpcReplicationService::Open(
    const grpc::ServerContext& context, const v1::OpenSessionRequest& message) {
  SNAPSYNC_ASSIGN_OR_RETURN(const SessionRequest request,
                            wire::FromProto(message));
  SNAPSYNC_ASSIGN_OR_RETURN(
      const Caller caller,
      gate_->Admit(context, "receive", request.volume, request.generation));
  SNAPSYNC_ASSIGN_OR_RETURN(const SessionGrant grant,
                            caller.replica->Open(request, caller.peer));
  Log(Severity::kInfo,
      "volume " + request.volume + ": session of " + caller.peer + " from " +
          request.source +
          (grant.committed
               ? " was committed before"
               : " goes on at chunk " + std::to_string(grant.watermark) +
                     " of " + std::to_string(request.chunk_count)));
  return grant;
}

grpc::Status GrpcReplicationService::Push(
    grpc::ServerContext* context, grpc::ServerReader<v1::PushRequest>* reader,
    v1::PushResponse* response) {
  const absl::StatusOr<SegmentAck> ack = Receive(*context, *reader);
  if (ack.ok()) *response = wire::ToProto(*ack);
  return End("push", ack.status());
}

absl::StatusOr<SegmentAck> GrpcReplicationService::Receive(
    grpc::ServerContext& context, grpc::ServerReader<v1::PushRequest>& reader) {
  wire::CallWatchdog::Call watch(&watchdog_,
                                 [&context] { context.TryCancel(); });
  v1::PushRequest message;
  if (!reader.Read(&message)) {
    if (context.IsCancelled()) {
      return Error(Reason::kConnection, "the sender is gone");
    }
    return Error(Reason::kOther, "a segment without a chunk");
  }
  SNAPSYNC_ASSIGN_OR_RETURN(const Caller caller,
                            gate_->Admit(context, "receive", message.volume()));
  SNAPSYNC_ASSIGN_OR_RETURN(const Id128 id, wire::SessionOf(message));
  SNAPSYNC_ASSIGN_OR_RETURN(const std::shared_ptr<Session> session,
                            caller.replica->Find(id, caller.peer));
  SNAPSYNC_ASSIGN_OR_RETURN(const std::unique_ptr<Session::Segment> segment,
                            session->StartSegment(message.index()));
  do {
    SNAPSYNC_ASSIGN_OR_RETURN(const Chunk chunk, wire::FromProto(message));
    SNAPSYNC_RETURN_IF_ERROR(segment->Add(chunk));
    WaitForTurn(chunk.data.size());
    watch.Moved();
  } while (reader.Read(&message));
  // The end of the stream is the sender's, or that of the connection.
  if (context.IsCancelled()) {
    return Error(Reason::kConnection, "the sender is gone");
  }
  return segment->Finish();
}

void GrpcReplicationService::WaitForTurn(uint64_t bytes) {
  std::chrono::nanoseconds wait(0);
  {
    MutexLock lock(&mutex_);
    wait = limiter_.Take(bytes, std::chrono::steady_clock::now());
  }
  if (wait.count() > 0) std::this_thread::sleep_for(wait);
}

grpc::Status GrpcReplicationService::CommitSession(
    grpc::ServerContext* context, const v1::CommitSessionRequest* request,
    v1::CommitSessionResponse* response) {
  const absl::StatusOr<Receipt> receipt = Commit(*context, *request);
  if (receipt.ok()) *response = wire::ToProto(*receipt);
  return End("commit", receipt.status());
}

absl::StatusOr<Receipt> GrpcReplicationService::Commit(
    const grpc::ServerContext& context,
    const v1::CommitSessionRequest& message) {
  SNAPSYNC_ASSIGN_OR_RETURN(const CommitRequest request,
                            wire::FromProto(message));
  SNAPSYNC_ASSIGN_OR_RETURN(const Caller caller,
                            gate_->Admit(context, "receive", request.volume));
  SNAPSYNC_ASSIGN_OR_RETURN(const Receipt receipt,
                            caller.replica->Commit(request, caller.peer));
  if (!caller.ticket.empty()) {
    tickets_->Spend(caller.ticket, receipt.generation);
  }
  Log(Severity::kInfo, "volume " + request.volume + ": generation " +
                           std::to_string(receipt.number) + " (" +
                           receipt.generation.ToString() + ") of " +
                           caller.peer + " committed");
  return receipt;
}

grpc::Status GrpcReplicationService::AbortSession(
    grpc::ServerContext* context, const v1::AbortSessionRequest* request,
    v1::AbortSessionResponse* /*response*/) {
  const absl::StatusOr<Caller> caller =
      gate_->Admit(*context, "receive", request->volume());
  if (!caller.ok()) return End("abort", caller.status());
  if (request->take_over()) {
    return End("take over", caller->replica->TakeOver(caller->peer));
  }
  return End("abort", caller->replica->Abort(caller->peer));
}

grpc::Status GrpcReplicationService::HashBlocks(
    grpc::ServerContext* context, const v1::HashBlocksRequest* request,
    grpc::ServerWriter<v1::HashBlocksResponse>* writer) {
  return End("hash blocks", Hash(*context, *request, *writer));
}

absl::Status GrpcReplicationService::Hash(
    grpc::ServerContext& context, const v1::HashBlocksRequest& message,
    grpc::ServerWriter<v1::HashBlocksResponse>& writer) {
  SNAPSYNC_ASSIGN_OR_RETURN(const HashRequest request,
                            wire::FromProto(message));
  SNAPSYNC_ASSIGN_OR_RETURN(const Caller caller,
                            gate_->Admit(context, "receive", request.volume));
  SNAPSYNC_ASSIGN_OR_RETURN(const HashStart start,
                            caller.replica->StartHash(request, caller.peer));
  Log(Severity::kInfo, "volume " + request.volume + ": hashed for " +
                           caller.peer + ", to be compared with " +
                           request.source);
  wire::CallWatchdog::Call watch(&watchdog_,
                                 [&context] { context.TryCancel(); });
  HashBatch batch;
  batch.generation = start.generation;
  batch.first_block = request.first_block;
  const auto send = [&] {
    if (!writer.Write(wire::ToProto(batch))) {
      return Error(Reason::kConnection, "the sender is gone");
    }
    watch.Moved();
    batch.generation = Id128{};
    batch.first_block += batch.digests.size();
    batch.digests.clear();
    return absl::OkStatus();
  };
  // The generation travels even where there is nothing to hash.
  SNAPSYNC_RETURN_IF_ERROR(send());
  for (;;) {
    SNAPSYNC_ASSIGN_OR_RETURN(const std::vector<Digest256> digests,
                              start.hasher->Next());
    if (digests.empty()) break;
    for (const Digest256& digest : digests) {
      batch.digests.push_back(digest);
      if (batch.digests.size() == kHashBatchBlocks) {
        SNAPSYNC_RETURN_IF_ERROR(send());
      }
    }
  }
  return batch.digests.empty() ? absl::OkStatus() : send();
}

grpc::Status GrpcReplicationService::ChangedSince(
    grpc::ServerContext* context, const v1::ChangedSinceRequest* request,
    grpc::ServerWriter<v1::ChangedSinceResponse>* writer) {
  return End("changed since", TellChanges(*context, *request, *writer));
}

absl::Status GrpcReplicationService::TellChanges(
    grpc::ServerContext& context, const v1::ChangedSinceRequest& message,
    grpc::ServerWriter<v1::ChangedSinceResponse>& writer) {
  SNAPSYNC_ASSIGN_OR_RETURN(const ChangesRequest request,
                            wire::FromProto(message));
  SNAPSYNC_ASSIGN_OR_RETURN(
      const Caller caller,
      gate_->Admit(context, "receive", request.target.volume));
  SNAPSYNC_ASSIGN_OR_RETURN(const Changes changes,
                            caller.replica->ChangedSince(request, caller.peer));
  wire::CallWatchdog::Call watch(&watchdog_,
                                 [&context] { context.TryCancel(); });
  size_t told = 0;
  do {
    const v1::ChangedSinceResponse part = wire::ToProto(changes, told);
    if (!writer.Write(part)) {
      return Error(Reason::kConnection, "the sender is gone");
    }
    watch.Moved();
    told += static_cast<size_t>(part.offsets_size());
  } while (told < changes.extents.extents().size());
  return absl::OkStatus();
}

}  // namespace snapsync
