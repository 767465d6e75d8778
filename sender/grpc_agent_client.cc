// SPDX-License-Identifier: Apache-2.0
#include "sender/grpc_agent_client.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/support/channel_arguments.h>

#include <set>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/wire/convert.h"
#include "common/wire/limits.h"
#include "common/wire/status.h"
#include "snapsync/v1/agent.grpc.pb.h"
#include "snapsync/v1/replication.grpc.pb.h"

namespace snapsync {
namespace {

using Clock = std::chrono::steady_clock;

// Ends calls in which nothing has moved for the timeout, and all of them when
// the client is cancelled. Thread-safe.
class Watchdog {
 public:
  explicit Watchdog(std::chrono::seconds timeout) : timeout_(timeout) {
    thread_ = std::thread([this] { Watch(); });
  }
  ~Watchdog() {
    {
      absl::MutexLock lock(&mutex_);
      stop_ = true;
    }
    thread_.join();
  }

  // A call under way, as long as the object lives.
  class Call {
   public:
    explicit Call(Watchdog* watchdog) : watchdog_(watchdog) {
      absl::MutexLock lock(&watchdog_->mutex_);
      last_move_ = Clock::now();
      watchdog_->calls_.insert(this);
      if (watchdog_->cancelled_) context.TryCancel();
    }
    ~Call() {
      absl::MutexLock lock(&watchdog_->mutex_);
      watchdog_->calls_.erase(this);
    }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

    void Moved() {
      absl::MutexLock lock(&watchdog_->mutex_);
      last_move_ = Clock::now();
    }
    bool timed_out() const {
      absl::MutexLock lock(&watchdog_->mutex_);
      return timed_out_;
    }

    grpc::ClientContext context;

   private:
    friend class Watchdog;
    Watchdog* const watchdog_;
    Clock::time_point last_move_;  // guarded by watchdog_->mutex_
    bool timed_out_ = false;       // guarded by watchdog_->mutex_
  };

  void Cancel() {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    for (Call* call : calls_) call->context.TryCancel();
  }

 private:
  void Watch() {
    absl::MutexLock lock(&mutex_);
    while (!mutex_.AwaitWithTimeout(absl::Condition(&stop_),
                                    absl::Milliseconds(250))) {
      if (timeout_.count() == 0) continue;
      const Clock::time_point now = Clock::now();
      for (Call* call : calls_) {
        if (now - call->last_move_ < timeout_) continue;
        call->timed_out_ = true;
        call->context.TryCancel();
      }
    }
  }

  const std::chrono::seconds timeout_;
  mutable absl::Mutex mutex_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<Call*> calls_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

absl::Status StatusOf(const Watchdog::Call& call, const grpc::Status& status) {
  if (!status.ok() && call.timed_out()) {
    return Error(Reason::kConnection,
                 "nothing moved for the timeout; the agent, its disks or the "
                 "network hang");
  }
  return wire::FromGrpc(status);
}

class GrpcSegmentStream final : public SegmentStream {
 public:
  GrpcSegmentStream(v1::Replication::Stub& stub, Watchdog* watchdog,
                    const std::string& volume, const Id128& session)
      : call_(watchdog), writer_(stub.Push(&call_.context, &response_)) {
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
    call_.Moved();
    return written;
  }

  void CloseWrites() override { writer_->WritesDone(); }

  absl::StatusOr<SegmentAck> Finish() override {
    call_.Moved();
    const grpc::Status status = writer_->Finish();
    finished_ = true;
    SNAPSYNC_RETURN_IF_ERROR(StatusOf(call_, status));
    return wire::FromProto(response_);
  }

 private:
  Watchdog::Call call_;
  v1::PushRequest message_;
  v1::PushResponse response_;
  const std::unique_ptr<grpc::ClientWriter<v1::PushRequest>> writer_;
  bool finished_ = false;
};

class GrpcAgentClient final : public AgentClient {
 public:
  GrpcAgentClient(const GrpcAgentOptions& options,
                  const std::shared_ptr<grpc::Channel>& channel)
      : options_(options),
        replication_(v1::Replication::NewStub(channel)),
        agent_(v1::Agent::NewStub(channel)),
        watchdog_(options.timeout) {}

  absl::StatusOr<VolumeState> Describe(const std::string& volume) override {
    v1::ListVolumesRequest request;
    request.set_name(volume);
    v1::ListVolumesResponse response;
    Watchdog::Call call(&watchdog_);
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
    v1::OpenSessionResponse response;
    Watchdog::Call call(&watchdog_);
    SNAPSYNC_RETURN_IF_ERROR(Explain(
        StatusOf(call, replication_->OpenSession(
                           &call.context, wire::ToProto(request), &response))));
    return wire::FromProto(response);
  }

  absl::StatusOr<std::unique_ptr<SegmentStream>> StartSegment(
      const std::string& volume, const Id128& session,
      uint64_t /*first*/) override {
    return std::make_unique<GrpcSegmentStream>(*replication_, &watchdog_,
                                               volume, session);
  }

  absl::StatusOr<Receipt> CommitSession(const CommitRequest& request) override {
    v1::CommitSessionResponse response;
    Watchdog::Call call(&watchdog_);
    SNAPSYNC_RETURN_IF_ERROR(
        StatusOf(call, replication_->CommitSession(
                           &call.context, wire::ToProto(request), &response)));
    return wire::FromProto(response);
  }

  void Cancel() override { watchdog_.Cancel(); }

 private:
  // gRPC says "socket closed" for nearly everything that can go wrong with a
  // connection: finds out what it was.
  absl::Status Explain(const absl::Status& status) const {
    if (status.ok() || ReasonOf(status) != Reason::kConnection) return status;
    const absl::Status cause =
        wire::DiagnoseConnection(options_.files, options_.host, options_.port);
    return cause.ok() ? status : cause;
  }

  const GrpcAgentOptions options_;
  const std::unique_ptr<v1::Replication::Stub> replication_;
  const std::unique_ptr<v1::Agent::Stub> agent_;
  Watchdog watchdog_;
};

}  // namespace

std::unique_ptr<AgentClient> MakeGrpcAgentClient(
    const GrpcAgentOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kFrameBytes);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // The pump has its own pauses; the channel must not add minutes to them.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 5000);
  const bool is_ipv6 = options.host.find(':') != std::string::npos;
  const std::string host = is_ipv6 ? "[" + options.host + "]" : options.host;
  return std::make_unique<GrpcAgentClient>(
      options, grpc::CreateCustomChannel(
                   host + ":" + std::to_string(options.port),
                   wire::MakeChannelCredentials(options.files), arguments));
}

}  // namespace snapsync
