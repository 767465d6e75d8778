// SPDX-License-Identifier: Apache-2.0
#include "agent/grpc_replicate.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <thread>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "sender/grpc_agent_client.h"
#include "sender/retrying_agent.h"
#include "sender/sync.h"

namespace snapsync {
namespace {

constexpr std::chrono::milliseconds kProgressEvery{500};
constexpr std::chrono::milliseconds kLook{100};
constexpr int kHighestPort = 65535;

absl::StatusOr<uint64_t> NumberOf(const v1::ReplicateRequest& request,
                                  Replica& replica) {
  if (request.generation().empty()) return request.number();
  Id128 wanted;
  if (request.generation().size() != wanted.bytes.size()) {
    return Error(Reason::kOther, "a generation has 16 bytes");
  }
  std::memcpy(wanted.bytes.data(), request.generation().data(),
              wanted.bytes.size());
  SNAPSYNC_ASSIGN_OR_RETURN(const VolumeState state, replica.Describe());
  for (const GenerationState& generation : state.generations) {
    if (generation.generation == wanted) return generation.number;
  }
  return Error(Reason::kTargetUnsuitable,
               "volume " + state.name + " was never at generation " +
                   wanted.ToString() + "; revert --list shows what there is");
}

// Reports to the one who gave the order.
class Report {
 public:
  explicit Report(grpc::ServerWriter<v1::ReplicateResponse>* writer)
      : writer_(writer) {}

  void Notice(const std::string& text) {
    v1::ReplicateResponse message;
    message.set_notice(text);
    writer_->Write(message);
  }

  void Progress(const PumpProgress& progress) {
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < kProgressEvery) return;
    last_ = now;
    v1::ReplicateResponse message;
    message.set_done_bytes(progress.done_bytes);
    message.set_total_bytes(progress.total_bytes);
    writer_->Write(message);
  }

  void Result(const SyncResult& result) {
    v1::ReplicateResponse message;
    v1::ReplicateResult& out = *message.mutable_result();
    out.set_result(result.result);
    out.set_method(result.method);
    out.set_why(result.why);
    out.set_generation(result.generation.bytes.data(),
                       result.generation.bytes.size());
    out.set_number(result.number);
    out.set_data_bytes(result.data_bytes);
    out.set_zero_bytes(result.zero_bytes);
    out.set_gone_bytes(result.gone_bytes);
    out.set_sent_bytes(result.sent_bytes);
    out.set_resumed_from_bytes(result.resumed_from_bytes);
    for (const std::string& warning : result.warnings) {
      out.add_warnings(warning);
    }
    writer_->Write(message);
  }

 private:
  grpc::ServerWriter<v1::ReplicateResponse>* const writer_;
  std::chrono::steady_clock::time_point last_;
};

PumpOptions PumpOf(const v1::ReplicateRequest& request,
                   grpc::ServerContext& context, Report& report) {
  PumpOptions pump;
  pump.retry_for = std::chrono::seconds(request.timeout_seconds());
  pump.bytes_per_second = request.bytes_per_second();
  pump.now = [] { return std::chrono::steady_clock::now(); };
  pump.interrupted = [&context] { return context.IsCancelled(); };
  pump.sleep = [&context](std::chrono::nanoseconds time) {
    const auto end = std::chrono::steady_clock::now() + time;
    for (auto left = time; left.count() > 0 && !context.IsCancelled();
         left = end - std::chrono::steady_clock::now()) {
      std::this_thread::sleep_for(
          std::min<std::chrono::nanoseconds>(left, kLook));
    }
  };
  pump.progress = [&report](const PumpProgress& p) { report.Progress(p); };
  pump.notice = [&report](const std::string& text) {
    Log(Severity::kInfo, text);
    report.Notice(text);
  };
  return pump;
}

}  // namespace

absl::Status RunReplicate(const AgentConfig& config, const Caller& caller,
                          grpc::ServerContext& context,
                          const v1::ReplicateRequest& request,
                          grpc::ServerWriter<v1::ReplicateResponse>& writer) {
  if (request.host().empty() || request.replication().empty() ||
      request.port() == 0 || request.port() > kHighestPort) {
    return Error(Reason::kOther,
                 "message from the peer: host, port or replication is missing");
  }
  SNAPSYNC_ASSIGN_OR_RETURN(const uint64_t number,
                            NumberOf(request, *caller.replica));
  SNAPSYNC_ASSIGN_OR_RETURN(
      const SendSource source,
      caller.replica->PrepareSend(number, request.dry_run()));
  GrpcAgentOptions target;
  target.host = request.host();
  target.port = static_cast<int>(request.port());
  target.files = {config.tls_ca, config.tls_certificate, config.tls_key};
  target.timeout = std::chrono::seconds(request.timeout_seconds());
  target.ticket = request.ticket();
  const std::unique_ptr<AgentClient> client = MakeGrpcAgentClient(target);

  Report report(&writer);
  SyncOptions sync;
  sync.source.path = source.path;
  if (source.is_image) {
    sync.source.image.emplace();
  } else {
    sync.source.size = source.size;
  }
  sync.source.state_directory = config.state_directory;
  sync.destination = request.host() + ":" + request.destination();
  sync.volume = request.destination();
  sync.replication = request.replication();
  if (!request.method().empty()) sync.method = request.method();
  sync.overwrite = true;  // whoever gave the order agreed
  sync.allow_full = request.allow_full();
  sync.dry_run = request.dry_run();
  sync.pump = PumpOf(request, context, report);
  Log(Severity::kInfo, "volume " + caller.volume + ": for " + caller.peer +
                           ", generation " + std::to_string(source.number) +
                           " goes to " + sync.destination);
  RetryingAgent agent(*client, sync.pump);
  SyncResult result;
  SNAPSYNC_RETURN_IF_ERROR(RunSync(sync, agent, result));
  if (source.from_promoted && !sync.dry_run) {
    if (absl::Status s = caller.replica->EndPromotion(); !s.ok()) {
      result.warnings.push_back(
          "volume " + caller.volume +
          " stays promoted, since it is written to still: " +
          std::string(MessageOf(s)) + "; run the revert again when it is not");
    }
  }
  report.Result(result);
  return absl::OkStatus();
}

}  // namespace snapsync
