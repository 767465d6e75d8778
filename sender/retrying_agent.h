// SPDX-License-Identifier: Apache-2.0
//
// An agent to which a lost connection is made again: each call but those of a
// session is repeated with the pauses of backoff.h, until nothing has moved for
// options.retry_for, or no call has ever succeeded for options.connect_for. A
// comparison goes on where it was. The calls of a session are passed on: the
// pump (pump.h) knows where to go on.
//
// Used as an AgentClient is.
#ifndef SNAPSYNC_SENDER_RETRYING_AGENT_H_
#define SNAPSYNC_SENDER_RETRYING_AGENT_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "sender/agent_client.h"
#include "sender/pump.h"

namespace snapsync {

class RetryingAgent final : public AgentClient {
 public:
  // Both must outlive it.
  RetryingAgent(AgentClient& agent, const PumpOptions& options)
      : agent_(agent), options_(options) {}

  absl::StatusOr<VolumeState> Describe(const std::string& volume) override;
  absl::StatusOr<SessionGrant> OpenSession(
      const SessionRequest& request) override {
    return agent_.OpenSession(request);
  }
  absl::StatusOr<std::unique_ptr<SegmentStream>> StartSegment(
      const std::string& volume, const Id128& session,
      uint64_t first) override {
    return agent_.StartSegment(volume, session, first);
  }
  absl::StatusOr<Receipt> CommitSession(const CommitRequest& request) override {
    return agent_.CommitSession(request);
  }
  absl::Status AbortSession(const std::string& volume) override;
  absl::Status TakeOver(const std::string& volume) override;
  // kBaseMismatch when another generation is there after a lost connection:
  // what was compared before is void.
  absl::StatusOr<Id128> HashBlocks(const HashRequest& request,
                                   const HashSink& sink) override;
  absl::StatusOr<Changes> ChangedSince(const ChangesRequest& request) override;
  void Cancel() override { agent_.Cancel(); }

 private:
  // Makes `call` until it ends in another way than by a lost connection.
  // `moved`: whether it got any further since it was asked last.
  absl::Status Retry(const std::function<absl::Status()>& call,
                     const std::function<bool()>& moved);
  // The same for what moves only when it succeeds.
  absl::Status Retry(const std::function<absl::Status()>& call);

  AgentClient& agent_;
  const PumpOptions& options_;
  bool reached_ = false;
};

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_RETRYING_AGENT_H_
