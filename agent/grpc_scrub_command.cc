// SPDX-License-Identifier: Apache-2.0
#include "agent/grpc_scrub_command.h"

#include <unistd.h>

#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>

#include "agent/grpc_own_agent.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"

namespace snapsync {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kTerminalInterval{250};
constexpr std::chrono::seconds kLogInterval{15};

// What is found as it is found, and how far it is every now and then.
class Display {
 public:
  ~Display() { Clear(); }

  void Show(const ScrubProgress& progress) {
    for (const Extent& extent : progress.damaged) {
      Clear();
      std::cerr << "damaged: " << extent.length << " bytes at offset "
                << extent.offset << "\n";
      damaged_.push_back(
          {{"offset", extent.offset}, {"length", extent.length}});
    }
    const auto now = steady_clock::now();
    if (terminal_ ? now - last_ < kTerminalInterval
                  : now - last_ < kLogInterval) {
      return;
    }
    last_ = now;
    if (terminal_) std::cerr << "\r\x1b[K";
    std::cerr << FormatBytes(progress.next) << " of "
              << FormatBytes(progress.size) << " (to go on here later: --from "
              << progress.next << ")";
    if (terminal_) {
      std::cerr << std::flush;
      shown_ = true;
    } else {
      std::cerr << "\n";
    }
  }

  const nlohmann::json& damaged() const { return damaged_; }

 private:
  void Clear() {
    if (shown_) std::cerr << "\r\x1b[K" << std::flush;
    shown_ = false;
  }

  const bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  bool shown_ = false;
  steady_clock::time_point last_ = steady_clock::now();
  nlohmann::json damaged_ = nlohmann::json::array();
};

void Print(const std::string& volume, const ScrubProgress& done) {
  std::cout << volume << ", generation " << done.generation.generation.Short()
            << " (number " << done.generation.number
            << "): " << FormatBytes(done.compared) << " compared, "
            << FormatBytes(done.damaged_bytes) << " damaged; "
            << FormatBytes(done.recorded)
            << " were not known and are recorded now.\n";
  if (done.damaged_manifest > 0) {
    std::cout << "The manifest itself was damaged in " << done.damaged_manifest
              << " places: check the disk with the agent's state directory.\n";
  }
}

}  // namespace

absl::Status RunScrubCommand(const AgentConfig& config,
                             const std::string& volume,
                             const ScrubOptions& options, bool json) {
  Display display;
  SNAPSYNC_ASSIGN_OR_RETURN(
      const ScrubProgress done,
      ScrubVolume(config, volume, options, [&](const ScrubProgress& progress) {
        display.Show(progress);
        return absl::OkStatus();
      }));
  if (json) {
    const nlohmann::json result = {
        {"volume", volume},
        {"generation", done.generation.generation.ToString()},
        {"number", done.generation.number},
        {"bytes", done.size},
        {"compared_bytes", done.compared},
        {"recorded_bytes", done.recorded},
        {"damaged_bytes", done.damaged_bytes},
        {"damaged", display.damaged()},
        {"damaged_manifest", done.damaged_manifest}};
    std::cout << result.dump() << "\n";
  } else {
    Print(volume, done);
  }
  if (done.damaged_bytes == 0 && done.damaged_manifest == 0) {
    return absl::OkStatus();
  }
  return Error(Reason::kVerification,
               "volume " + volume +
                   (done.damaged_bytes > 0
                        ? ": the disk does not hold what was written; have the "
                          "sender run snapsync-send verify --repair"
                        : ": its manifest was damaged"));
}

}  // namespace snapsync
