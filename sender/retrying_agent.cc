// SPDX-License-Identifier: Apache-2.0
#include "sender/retrying_agent.h"

#include <optional>
#include <span>
#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "sender/backoff.h"

namespace snapsync {

absl::Status RetryingAgent::Retry(const std::function<absl::Status()>& call,
                                  const std::function<bool()>& moved) {
  Backoff backoff(options_);
  auto since = options_.now();
  for (;;) {
    const absl::Status status = call();
    const bool lost = !status.ok() && ReasonOf(status) == Reason::kConnection;
    const bool got_further = moved();
    reached_ |= !lost || got_further;
    if (!lost) return status;
    if (got_further) {
      backoff.Reset();
      since = options_.now();
    }
    SNAPSYNC_RETURN_IF_ERROR(backoff.Wait(
        status, since, reached_ ? options_.retry_for : options_.connect_for));
  }
}

absl::Status RetryingAgent::Retry(const std::function<absl::Status()>& call) {
  return Retry(call, [] { return false; });
}

absl::StatusOr<VolumeState> RetryingAgent::Describe(const std::string& volume) {
  VolumeState state;
  SNAPSYNC_RETURN_IF_ERROR(Retry([&]() -> absl::Status {
    SNAPSYNC_ASSIGN_OR_RETURN(state, agent_.Describe(volume));
    return absl::OkStatus();
  }));
  return state;
}

absl::Status RetryingAgent::AbortSession(const std::string& volume) {
  return Retry([&] { return agent_.AbortSession(volume); });
}

absl::Status RetryingAgent::TakeOver(const std::string& volume) {
  return Retry([&] { return agent_.TakeOver(volume); });
}

absl::StatusOr<Changes> RetryingAgent::ChangedSince(
    const ChangesRequest& request) {
  Changes changes;
  SNAPSYNC_RETURN_IF_ERROR(Retry([&]() -> absl::Status {
    SNAPSYNC_ASSIGN_OR_RETURN(changes, agent_.ChangedSince(request));
    return absl::OkStatus();
  }));
  return changes;
}

absl::StatusOr<Id128> RetryingAgent::HashBlocks(const HashRequest& request,
                                                const HashSink& sink) {
  HashRequest rest = request;
  std::optional<Id128> compared;
  const auto take = [&](const Id128& generation, uint64_t first_block,
                        std::span<const Digest256> digests) -> absl::Status {
    if (compared && *compared != generation) {
      return Error(Reason::kBaseMismatch,
                   "volume " + request.volume +
                       " was written to by somebody else while it was "
                       "compared; run the same again");
    }
    compared = generation;
    SNAPSYNC_RETURN_IF_ERROR(sink(generation, first_block, digests));
    rest.first_block = first_block + digests.size();
    return absl::OkStatus();
  };
  Id128 generation;
  uint64_t seen = rest.first_block;
  SNAPSYNC_RETURN_IF_ERROR(Retry(
      [&]() -> absl::Status {
        SNAPSYNC_ASSIGN_OR_RETURN(generation, agent_.HashBlocks(rest, take));
        return absl::OkStatus();
      },
      [&] {
        return std::exchange(seen, rest.first_block) < rest.first_block;
      }));
  return generation;
}

}  // namespace snapsync
