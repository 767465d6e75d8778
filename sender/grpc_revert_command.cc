// SPDX-License-Identifier: Apache-2.0
#include "sender/grpc_revert_command.h"

#include <grpcpp/client_context.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <ctime>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "common/wire/convert.h"
#include "common/wire/limits.h"
#include "common/wire/status.h"
#include "common/wire/tls.h"
#include "sender/grpc_agent_client.h"
#include "sender/grpc_sync_command.h"
#include "sender/progress.h"
#include "snapsync/v1/agent.grpc.pb.h"

namespace snapsync {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::seconds kShortCall{60};
constexpr std::chrono::seconds kFirstPause{1};
constexpr std::chrono::seconds kLongestPause{10};

class Revert {
 public:
  explicit Revert(const RevertCommand& command)
      : command_(command),
        source_options_(OptionsOf(command.source, command.source_port)),
        target_options_(OptionsOf(command.target, command.config.port)) {}

  // Again and again, while it may help and something moves.
  absl::Status Run(SyncResult& result) {
    auto pause = kFirstPause;
    moved_ = steady_clock::now();
    bool refused = false;  // the last time
    for (;;) {
      const auto before = moved_;
      const absl::Status status = Attempt(result);
      if (status.ok()) return status;
      // An agent that was started anew does not know its tickets any more; then
      // a new one helps, unless it was refused as well.
      if (ReasonOf(status) == Reason::kPermission && reached_ &&
          (!refused || moved_ > before)) {
        refused = true;
        continue;
      }
      if (ReasonOf(status) != Reason::kConnection) return status;
      refused = false;
      if (moved_ > before) pause = kFirstPause;
      const std::chrono::seconds patience(
          reached_ ? command_.config.retry_for_seconds
                   : command_.config.connect_for_seconds);
      if (patience.count() > 0 &&
          steady_clock::now() + pause - moved_ > patience) {
        return status;
      }
      line_.Notice(std::string(MessageOf(status)) + "; trying again");
      std::this_thread::sleep_for(pause);
      pause = std::min(2 * pause, kLongestPause);
    }
  }

  absl::StatusOr<VolumeState> Describe() {
    v1::ListVolumesRequest request;
    request.set_name(command_.source.volume);
    v1::ListVolumesResponse response;
    const auto stub = v1::Agent::NewStub(MakeAgentChannel(source_options_));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kShortCall);
    SNAPSYNC_RETURN_IF_ERROR(Explained(
        source_options_, stub->ListVolumes(&context, request, &response)));
    if (response.volumes_size() != 1) {
      return Error(Reason::kOther, "the agent answered for no volume");
    }
    return wire::FromProto(response.volumes(0));
  }

 private:
  GrpcAgentOptions OptionsOf(const Destination& end, int port) const {
    const SenderConfig& config = command_.config;
    GrpcAgentOptions options;
    options.host = end.host;
    options.port = port;
    options.files = {config.tls_ca, config.tls_certificate, config.tls_key};
    return options;
  }

  static absl::Status Explained(const GrpcAgentOptions& options,
                                const grpc::Status& answer) {
    const absl::Status status = wire::FromGrpc(answer);
    if (status.ok() || ReasonOf(status) != Reason::kConnection) return status;
    const absl::Status cause =
        wire::DiagnoseConnection(options.files, options.host, options.port);
    return cause.ok() ? status : cause;
  }

  absl::Status Attempt(SyncResult& result) {
    // New channels: what the old ones know of a broken connection is stale.
    const auto source = v1::Agent::NewStub(MakeAgentChannel(source_options_));
    const auto target = v1::Agent::NewStub(MakeAgentChannel(target_options_));
    v1::GetInfoResponse info;
    {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + kShortCall);
      SNAPSYNC_RETURN_IF_ERROR(
          Explained(source_options_, source->GetInfo(&context, {}, &info)));
    }
    v1::IssueTicketResponse ticket;
    {
      v1::IssueTicketRequest request;
      request.set_volume(command_.target.volume);
      request.set_peer(info.node());
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + kShortCall);
      SNAPSYNC_RETURN_IF_ERROR(Explained(
          target_options_, target->IssueTicket(&context, request, &ticket)));
    }
    if (!reached_) moved_ = steady_clock::now();
    reached_ = true;
    return Replicate(*source, ticket.ticket(), result);
  }

  absl::Status Replicate(v1::Agent::Stub& source, const std::string& ticket,
                         SyncResult& result) {
    grpc::ClientContext context;
    const auto reader = source.Replicate(&context, RequestWith(ticket));
    v1::ReplicateResponse message;
    bool finished = false;
    uint64_t done = 0;
    while (reader->Read(&message)) {
      if (!message.notice().empty()) line_.Notice(message.notice());
      if (message.done_bytes() > done) {
        done = message.done_bytes();
        moved_ = steady_clock::now();
        PumpProgress progress;
        progress.done_bytes = done;
        progress.total_bytes = message.total_bytes();
        line_.Update(progress);
      }
      if (message.has_result()) {
        Take(message.result(), result);
        finished = true;
      }
    }
    SNAPSYNC_RETURN_IF_ERROR(Explained(source_options_, reader->Finish()));
    if (!finished) {
      return Error(Reason::kConnection,
                   "the agent at the source ended without a result");
    }
    return absl::OkStatus();
  }

  v1::ReplicateRequest RequestWith(const std::string& ticket) const {
    v1::ReplicateRequest request;
    request.mutable_versions()->set_lowest(kLowestProtocol);
    request.mutable_versions()->set_highest(kHighestProtocol);
    request.set_volume(command_.source.volume);
    request.set_number(command_.number);
    if (!command_.generation.none()) {
      request.set_generation(command_.generation.bytes.data(),
                             command_.generation.bytes.size());
    }
    request.set_host(command_.target.host);
    request.set_port(static_cast<uint32_t>(command_.config.port));
    request.set_destination(command_.target.volume);
    request.set_replication(command_.replication);
    request.set_ticket(ticket);
    request.set_method(command_.method);
    request.set_allow_full(command_.allow_full);
    request.set_dry_run(command_.dry_run);
    request.set_bytes_per_second(command_.config.bytes_per_second);
    request.set_timeout_seconds(command_.config.timeout_seconds);
    return request;
  }

  static void Take(const v1::ReplicateResult& message, SyncResult& result) {
    result.result = message.result();
    result.method = message.method();
    result.why = message.why();
    if (message.generation().size() == result.generation.bytes.size()) {
      std::memcpy(result.generation.bytes.data(), message.generation().data(),
                  result.generation.bytes.size());
    }
    result.number = message.number();
    result.data_bytes = message.data_bytes();
    result.zero_bytes = message.zero_bytes();
    result.gone_bytes = message.gone_bytes();
    result.sent_bytes = message.sent_bytes();
    result.resumed_from_bytes = message.resumed_from_bytes();
    result.warnings.assign(message.warnings().begin(),
                           message.warnings().end());
  }

  const RevertCommand& command_;
  const GrpcAgentOptions source_options_;
  const GrpcAgentOptions target_options_;
  ProgressLine line_;
  steady_clock::time_point moved_;
  bool reached_ = false;
};

std::string TimeText(int64_t unix_seconds) {
  const std::time_t time = unix_seconds;
  std::tm parts{};
  ::localtime_r(&time, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts);
  return text;
}

void PrintList(const VolumeState& volume, bool json) {
  if (json) {
    nlohmann::ordered_json out = {
        {"schema", "snapsync.generations/1"},
        {"volume", volume.name},
        {"state", volume.state},
        {"promoted", volume.promoted},
        {"generations", nlohmann::ordered_json::array()}};
    for (const GenerationState& item : volume.generations) {
      out["generations"].push_back({{"number", item.number},
                                    {"generation", item.generation.ToString()},
                                    {"size", item.size},
                                    {"committed", item.unix_seconds},
                                    {"retained", item.retained},
                                    {"verified", item.verified}});
    }
    std::cout << out.dump() << "\n";
    return;
  }
  for (const GenerationState& item : volume.generations) {
    if (!item.retained) continue;
    std::cout << volume.name << "@" << item.number << "  "
              << TimeText(item.unix_seconds) << "  " << FormatBytes(item.size)
              << "  " << item.generation.ToString()
              << (item.number == volume.number ? "  (newest)" : "") << "\n";
  }
}

absl::Status CheckFiles(const SenderConfig& config) {
  wire::RestrictToTls13();
  return wire::CheckTlsFiles(
             {config.tls_ca, config.tls_certificate, config.tls_key})
      .status();
}

}  // namespace

int RunRevertCommand(const RevertCommand& command) {
  LogOptions log;
  log.program = "snapsync-send";
  log.directory = command.config.log_directory;
  log.file_level = command.config.log_level;
  absl::Status status = StartLog(log);
  if (status.ok()) status = CheckFiles(command.config);
  const auto begin = steady_clock::now();
  SyncResult result;
  result.warnings = command.warnings;
  if (status.ok()) {
    Revert revert(command);
    if (command.list) {
      const absl::StatusOr<VolumeState> volume = revert.Describe();
      if (volume.ok()) {
        PrintList(*volume, command.json);
        return 0;
      }
      status = volume.status();
    } else {
      status = revert.Run(result);
      result.warnings.insert(result.warnings.begin(), command.warnings.begin(),
                             command.warnings.end());
    }
  }
  result.seconds =
      std::chrono::duration<double>(steady_clock::now() - begin).count();
  const int exit_code = ExitCode(status);
  std::string error;
  if (!status.ok()) {
    result.result = "error";
    error = std::string(MessageOf(status));
    Log(Severity::kError, error);
  }
  for (const std::string& warning : result.warnings) {
    Log(Severity::kWarning, warning);
  }
  if (command.json) {
    PrintSyncJson(command.name, result, exit_code, error);
  } else if (status.ok()) {
    PrintSyncText(command.target.host + ":" + command.target.volume, result);
  }
  return exit_code;
}

}  // namespace snapsync
