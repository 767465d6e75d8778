// SPDX-License-Identifier: Apache-2.0
#include "sender/backoff.h"

#include <algorithm>
#include <string>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"

namespace snapsync {
namespace {

absl::Status CheckNotInterrupted(const PumpOptions& options) {
  if (!options.interrupted()) return absl::OkStatus();
  return Error(Reason::kConnection, "interrupted");
}

}  // namespace

absl::Status Backoff::Wait(const absl::Status& failed,
                           std::chrono::steady_clock::time_point since,
                           std::chrono::nanoseconds limit) {
  SNAPSYNC_RETURN_IF_ERROR(CheckNotInterrupted(options_));
  const std::chrono::nanoseconds still = options_.now() - since;
  if (limit.count() != 0 && still + pause_ > limit) return failed;
  options_.notice(std::string(MessageOf(failed)) + "; trying again in " +
                  FormatSeconds(std::chrono::duration<double>(pause_).count()));
  options_.sleep(pause_);
  pause_ = std::min(2 * pause_, kLongest);
  return CheckNotInterrupted(options_);
}

}  // namespace snapsync
