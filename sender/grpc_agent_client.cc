// SPDX-License-Identifier: Apache-2.0
#include "sender/grpc_agent_client.h"

#include <grpc/grpc.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/support/channel_arguments.h>

#include <chrono>
#include <optional>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/wire/call_watchdog.h"
#include "common/wire/convert.h"
#include "common/wire/limits.h"
#include "common/wire/status.h"
#include "snapsync/v1/agent.grpc.pb.h"
#include "snapsync/v1/replication.grpc.pb.h"

namespace snapsync {
namespace {

using wire::CallWatchdog;

constexpr std::chrono::seconds kConnectPatience{5};

// A call of ours: gRPC's context under the watchdog. `dead` becomes true when
// nothing moved: the connection may be one that says nothing any more, of which
// gRPC would take half a minute to find out.
struct WatchedCall {
  WatchedCall(CallWatchdog* watchdog, const std::string& ticket, bool* found)
      : dead(found), watch(watchdog, [this] { context.TryCancel(); }) {
    if (!ticket.empty()) context.AddMetadata(kTicketHeader, ticket);
  }
  ~WatchedCall() { *dead |= watch.timed_out(); }
  WatchedCall(const WatchedCall&) = delete;
  WatchedCall& operator=(const WatchedCall&) = delete;

  bool* const dead;
  grpc::ClientContext context;
  CallWatchdog::Call watch;
};

absl::Status StatusOf(const WatchedCall& call, const grpc::Status& status) {
  if (!status.ok() && call.watch.timed_out()) {
    return Error(Reason::kConnection,
                 "nothing moved for the timeout; the agent, its disks or the "
                 "network hang");
  }
  return wire::FromGrpc(status);
}

class GrpcSegmentStream final : public SegmentStream {
 public:
  GrpcSegmentStream(v1::Replication::Stub& stub, CallWatchdog* watchdog,
                    const std::string& ticket, bool* dead,
                    const std::string& volume, const Id128& session)
      : call_(watchdog, ticket, dead),
        writer_(stub.Push(&call_.context, &response_)) {
    // Only the first message says where the segment belongs.
    message_.set_volume(volume);
    message_.set_session(session.bytes.data(), session.bytes.size());
  }
  ~GrpcSegmentStream() override {
    if (finished_) return;
    call_.context.TryCancel();
    writer_->Finish();
  }

  bool Write(const Chunk& chunk) override {
    wire::ToProto(chunk, message_);
    const bool written = writer_->Write(message_);
    message_.clear_volume();
    message_.clear_session();
    call_.watch.Moved();
    return written;
  }

  void CloseWrites() override { writer_->WritesDone(); }

  absl::StatusOr<SegmentAck> Finish() override {
    call_.watch.Moved();
    const grpc::Status status = writer_->Finish();
    finished_ = true;
    SNAPSYNC_RETURN_IF_ERROR(StatusOf(call_, status));
    return wire::FromProto(response_);
  }

 private:
  WatchedCall call_;
  v1::PushRequest message_;
  v1::PushResponse response_;
  const std::unique_ptr<grpc::ClientWriter<v1::PushRequest>> writer_;
  bool finished_ = false;
};

class GrpcAgentClient final : public AgentClient {
 public:
  explicit GrpcAgentClient(const GrpcAgentOptions& options)
      : options_(options), watchdog_(options.timeout) {}

  absl::StatusOr<VolumeState> Describe(const std::string& volume) override {
    Connect();
    v1::ListVolumesRequest request;
    request.set_name(volume);
    v1::ListVolumesResponse response;
    WatchedCall call(&watchdog_, options_.ticket, &dead_);
    SNAPSYNC_RETURN_IF_ERROR(Explain(StatusOf(
        call, agent_->ListVolumes(&call.context, request, &response))));
    if (response.volumes_size() != 1) {
      return Error(Reason::kOther, "the agent answered for " +
                                       std::to_string(response.volumes_size()) +
                                       " volumes instead of one");
    }
    return wire::FromProto(response.volumes(0));
  }

  absl::StatusOr<SessionGrant> OpenSession(
      const SessionRequest& request) override {
    Connect();
    v1::OpenSessionResponse response;
    WatchedCall call(&watchdog_, options_.ticket, &dead_);
    SNAPSYNC_RETURN_IF_ERROR(Explain(
        StatusOf(call, replication_->OpenSession(
                           &call.context, wire::ToProto(request), &response))));
    return wire::FromProto(response);
  }

  absl::StatusOr<std::unique_ptr<SegmentStream>> StartSegment(
      const std::string& volume, const Id128& session,
      uint64_t /*first*/) override {
    return std::make_unique<GrpcSegmentStream>(
        *replication_, &watchdog_, options_.ticket, &dead_, volume, session);
  }

  absl::StatusOr<Receipt> CommitSession(const CommitRequest& request) override {
    v1::CommitSessionResponse response;
    WatchedCall call(&watchdog_, options_.ticket, &dead_);
    SNAPSYNC_RETURN_IF_ERROR(
        StatusOf(call, replication_->CommitSession(
                           &call.context, wire::ToProto(request), &response)));
    return wire::FromProto(response);
  }

  absl::Status AbortSession(const std::string& volume) override {
    return Abort(volume, false);
  }

  absl::Status TakeOver(const std::string& volume) override {
    return Abort(volume, true);
  }

  absl::StatusOr<Id128> HashBlocks(const HashRequest& request,
                                   const HashSink& sink) override {
    Connect();
    v1::HashBlocksResponse response;
    WatchedCall call(&watchdog_, options_.ticket, &dead_);
    const auto reader =
        replication_->HashBlocks(&call.context, wire::ToProto(request));
    std::optional<Id128> generation;
    absl::Status taken;
    while (taken.ok() && reader->Read(&response)) {
      call.watch.Moved();
      absl::StatusOr<HashBatch> batch = wire::FromProto(response);
      if (batch.ok() && !generation) generation = batch->generation;
      taken = batch.ok() ? sink(*generation, batch->first_block, batch->digests)
                         : batch.status();
      call.watch.Moved();
    }
    if (!taken.ok()) call.context.TryCancel();
    const grpc::Status status = reader->Finish();
    if (!taken.ok()) return taken;
    SNAPSYNC_RETURN_IF_ERROR(Explain(StatusOf(call, status)));
    if (!generation) {
      return Error(Reason::kOther, "the agent answered without a generation");
    }
    return *generation;
  }

  absl::StatusOr<Changes> ChangedSince(const ChangesRequest& request) override {
    Connect();
    v1::ChangedSinceResponse response;
    WatchedCall call(&watchdog_, options_.ticket, &dead_);
    const auto reader =
        replication_->ChangedSince(&call.context, wire::ToProto(request));
    Changes changes;
    absl::Status taken;
    while (taken.ok() && reader->Read(&response)) {
      call.watch.Moved();
      taken = wire::Append(response, changes);
    }
    if (!taken.ok()) call.context.TryCancel();
    const grpc::Status status = reader->Finish();
    if (!taken.ok()) return taken;
    SNAPSYNC_RETURN_IF_ERROR(Explain(StatusOf(call, status)));
    if (changes.generation.none()) {
      return Error(Reason::kOther, "the agent answered without a generation");
    }
    return changes;
  }

  void Cancel() override { watchdog_.CancelAll(); }

 private:
  absl::Status Abort(const std::string& volume, bool take_over) {
    Connect();
    v1::AbortSessionRequest request;
    request.set_volume(volume);
    request.set_take_over(take_over);
    v1::AbortSessionResponse response;
    WatchedCall call(&watchdog_, options_.ticket, &dead_);
    return Explain(StatusOf(
        call, replication_->AbortSession(&call.context, request, &response)));
  }

  // Makes a connection, or finds that it can't be: without a call under way
  // nobody reads what the agent says in the handshake. A channel whose
  // connection was lost is replaced. Its calls may fail with an error of long
  // ago; and it looks the agent's name up again once 30 seconds have passed
  // since it last did, which, if it comes while the channel connects, may keep
  // it from the second of two addresses for ever (seen with gRPC 1.51).
  void Connect() {
    if (channel_ == nullptr || dead_ ||
        channel_->GetState(false) != GRPC_CHANNEL_READY) {
      dead_ = false;
      channel_ = MakeAgentChannel(options_);
      replication_ = v1::Replication::NewStub(channel_);
      agent_ = v1::Agent::NewStub(channel_);
    }
    const auto deadline = std::chrono::system_clock::now() + kConnectPatience;
    for (;;) {
      const grpc_connectivity_state state = channel_->GetState(true);
      if (state == GRPC_CHANNEL_READY ||
          state == GRPC_CHANNEL_TRANSIENT_FAILURE ||
          !channel_->WaitForStateChange(state, deadline)) {
        return;
      }
    }
  }

  // gRPC says "socket closed" for nearly everything that can go wrong with a
  // connection: finds out what it was.
  absl::Status Explain(const absl::Status& status) const {
    if (status.ok() || ReasonOf(status) != Reason::kConnection) return status;
    const absl::Status cause =
        wire::DiagnoseConnection(options_.files, options_.host, options_.port);
    return cause.ok() ? status : cause;
  }

  const GrpcAgentOptions options_;
  // Made by Connect(), which all calls but those of a session begin with.
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Replication::Stub> replication_;
  std::unique_ptr<v1::Agent::Stub> agent_;
  bool dead_ = false;  // the channel's connection, it seems
  CallWatchdog watchdog_;
};

}  // namespace

std::shared_ptr<grpc::Channel> MakeAgentChannel(
    const GrpcAgentOptions& options) {
  // gRPC is kept to the end of the process: when its last user is gone it
  // cleans up in a thread of its own, which the end of the process would cut
  // off.
  [[maybe_unused]] static const bool kKept = (grpc_init(), true);
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // A new channel is a new connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kFrameBytes);
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  if (!options.server_name.empty()) {
    arguments.SetString(GRPC_SSL_TARGET_NAME_OVERRIDE_ARG, options.server_name);
  }
  const bool is_ipv6 = options.host.find(':') != std::string::npos;
  const std::string host = is_ipv6 ? "[" + options.host + "]" : options.host;
  return grpc::CreateCustomChannel(host + ":" + std::to_string(options.port),
                                   wire::MakeChannelCredentials(options.files),
                                   arguments);
}

std::unique_ptr<AgentClient> MakeGrpcAgentClient(
    const GrpcAgentOptions& options) {
  return std::make_unique<GrpcAgentClient>(options);
}

}  // namespace snapsync
