// SPDX-License-Identifier: Apache-2.0
#include "sender/grpc_sync_command.h"

#include <malloc.h>

#include <atomic>
#include <csignal>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "common/wire/limits.h"
#include "common/wire/tls.h"
#include "sender/abort.h"
#include "sender/grpc_agent_client.h"
#include "sender/local_agent_client.h"
#include "sender/progress.h"
#include "sender/retrying_agent.h"
#include "sender/verify.h"

namespace snapsync {
namespace {

constexpr size_t kShownExtents = 20;
constexpr size_t kListedExtents = 10000;

// Waits for SIGINT and SIGTERM in a thread of its own: the first one ends the
// sync where it can be resumed, the second one the process. The signals must be
// blocked in all threads.
class Interrupt {
 public:
  Interrupt(const sigset_t& signals, AgentClient* agent)
      : thread_([this, signals, agent] {
          int received = 0;
          sigwait(&signals, &received);
          if (received == SIGUSR1) return;
          signal_ = received;
          agent->Cancel();
          sigwait(&signals, &received);
          if (received != SIGUSR1) std::_Exit(128 + received);
        }) {}
  ~Interrupt() {
    pthread_kill(thread_.native_handle(), SIGUSR1);
    thread_.join();
  }
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // 0: none came.
  int signal() const { return signal_; }

 private:
  std::atomic<int> signal_{0};
  std::thread thread_;
};

absl::StatusOr<std::unique_ptr<AgentClient>> MakeAgentClient(
    const SyncCommand& command) {
  const SenderConfig& config = command.config;
  if (command.destination.local()) {
    return MakeLocalAgentClient(config.state_directory,
                                command.destination.volume,
                                command.sync.to_image);
  }
  GrpcAgentOptions options;
  options.host = command.destination.host;
  options.port = config.port;
  options.files = {config.tls_ca, config.tls_certificate, config.tls_key};
  options.timeout = std::chrono::seconds(config.timeout_seconds);
  wire::RestrictToTls13();
  SNAPSYNC_RETURN_IF_ERROR(wire::CheckTlsFiles(options.files).status());
  return MakeGrpcAgentClient(options);
}

absl::Status Run(SyncCommand& command, const sigset_t& signals,
                 VerifyResult& result, int& signal) {
  const SenderConfig& config = command.config;
  LogOptions log;
  log.program = "snapsync-send";
  log.directory = config.log_directory;
  log.file_level = config.log_level;
  SNAPSYNC_RETURN_IF_ERROR(StartLog(log));
  ::mallopt(M_ARENA_MAX, kMallocArenas);
  SNAPSYNC_ASSIGN_OR_RETURN(const std::unique_ptr<AgentClient> client,
                            MakeAgentClient(command));
  const Interrupt interrupt(signals, client.get());
  ProgressLine line;
  PumpOptions& pump = command.sync.pump;
  pump.now = [] { return std::chrono::steady_clock::now(); };
  pump.interrupted = [&interrupt] { return interrupt.signal() != 0; };
  pump.sleep = [&interrupt](std::chrono::nanoseconds time) {
    const auto end = std::chrono::steady_clock::now() + time;
    for (auto left = time; left.count() > 0 && interrupt.signal() == 0;
         left = end - std::chrono::steady_clock::now()) {
      std::this_thread::sleep_for(std::min<std::chrono::nanoseconds>(
          left, std::chrono::milliseconds(100)));
    }
  };
  pump.progress = [&line](const PumpProgress& p) { line.Update(p); };
  pump.notice = [&line](const std::string& text) {
    line.Notice(text);
    Log(Severity::kInfo, text);
  };
  RetryingAgent agent(*client, pump);
  absl::Status status;
  if (command.verify) {
    status = RunVerify(command.sync, command.repair, agent, result);
  } else if (command.abort) {
    status = RunAbort(command.sync, agent, result.sync);
  } else {
    status = RunSync(command.sync, agent, result.sync);
  }
  signal = interrupt.signal();
  return status;
}

void PrintVerified(const VerifyResult& verified, bool json, int exit_code,
                   const std::string& error) {
  const std::vector<Extent>& different = verified.different.extents();
  if (!json) {
    for (size_t i = 0; i < different.size() && i < kShownExtents; ++i) {
      std::cout << "different: offset " << different[i].offset << ", "
                << different[i].length << " bytes\n";
    }
    if (different.size() > kShownExtents) {
      std::cout << "and " << different.size() - kShownExtents << " more\n";
    }
    std::cout << verified.result << ": " << FormatBytes(verified.compared_bytes)
              << " compared, " << FormatBytes(verified.different.bytes())
              << " different\n";
    return;
  }
  nlohmann::ordered_json out = {
      {"schema", "snapsync.verify/1"},
      {"result", verified.result},
      {"exit_code", exit_code},
      {"generation", verified.sync.generation.none()
                         ? ""
                         : verified.sync.generation.ToString()},
      {"number", verified.sync.number},
      {"compared_bytes", verified.compared_bytes},
      {"different_bytes", verified.different.bytes()},
      {"different", nlohmann::ordered_json::array()},
      {"sent_bytes", verified.sync.sent_bytes},
      {"seconds", verified.sync.seconds},
      {"warnings", verified.sync.warnings}};
  for (size_t i = 0; i < different.size() && i < kListedExtents; ++i) {
    out["different"].push_back({different[i].offset, different[i].length});
  }
  if (!error.empty()) out["error"] = error;
  std::cout << out.dump(-1, ' ', false,
                        nlohmann::ordered_json::error_handler_t::replace)
            << "\n";
}

}  // namespace

void PrintSyncJson(const std::string& command, const SyncResult& result,
                   int exit_code, const std::string& error) {
  nlohmann::ordered_json json = {
      {"schema", "snapsync." + command + "/1"},
      {"result", result.result},
      {"exit_code", exit_code},
      {"method", result.method},
      {"why", result.why},
      {"generation",
       result.generation.none() ? "" : result.generation.ToString()},
      {"number", result.number},
      {"plan",
       {{"data_bytes", result.data_bytes},
        {"zero_bytes", result.zero_bytes},
        {"gone_bytes", result.gone_bytes}}},
      {"sent_bytes", result.sent_bytes},
      {"resumed_from_bytes", result.resumed_from_bytes},
      {"seconds", result.seconds},
      {"warnings", result.warnings}};
  if (!error.empty()) json["error"] = error;
  std::cout << json.dump(-1, ' ', false,
                         nlohmann::ordered_json::error_handler_t::replace)
            << "\n";
}

void PrintSyncText(const std::string& volume, const SyncResult& result) {
  const std::string generation = result.generation.Short();
  if (result.result == "aborted") {
    std::cout << "Given up: " << volume << " is what it was, generation "
              << generation << ".\n";
    return;
  }
  if (result.result == "unchanged") {
    std::cout << "Nothing changed: " << volume << " holds generation "
              << generation << " still.\n";
    return;
  }
  const bool dry_run = result.result == "dry-run";
  std::cout << (dry_run ? "Would send " : "Sent ")
            << FormatBytes(dry_run ? result.data_bytes : result.sent_bytes)
            << " by method " << result.method << " (" << result.why << "); "
            << FormatBytes(result.zero_bytes) << " were zero, "
            << FormatBytes(result.gone_bytes) << " gone.\n";
  if (dry_run) return;
  std::cout << volume << " holds generation " << generation << " (number "
            << result.number << "), after " << FormatSeconds(result.seconds)
            << ".\n";
}

int RunSyncCommand(SyncCommand command) {
  // Blocked before any thread exists: only the waiting thread gets them.
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) {
    sigaddset(&signals, signal);
  }
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);

  const auto begin = std::chrono::steady_clock::now();
  VerifyResult verified;
  SyncResult& result = verified.sync;
  int signal = 0;
  const absl::Status status = Run(command, signals, verified, signal);
  result.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin)
          .count();
  result.warnings.insert(result.warnings.begin(), command.warnings.begin(),
                         command.warnings.end());
  const bool interrupted = !status.ok() && signal != 0;
  const int exit_code = interrupted ? 128 + signal : ExitCode(status);
  std::string error;
  if (!status.ok()) {
    result.result = "error";
    if (verified.result.empty()) verified.result = "error";
    error = interrupted ? "interrupted; the same command goes on where it was"
                        : std::string(MessageOf(status));
    Log(Severity::kError, error);
  }
  for (const std::string& warning : result.warnings) {
    Log(Severity::kWarning, warning);
  }
  if (command.verify) {
    PrintVerified(verified, command.json, exit_code, error);
  } else if (command.json) {
    PrintSyncJson(command.name, result, exit_code, error);
  } else if (status.ok()) {
    PrintSyncText(command.sync.volume, result);
  }
  return exit_code;
}

}  // namespace snapsync
