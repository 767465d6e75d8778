// SPDX-License-Identifier: Apache-2.0
//
// The sender's side of the simulated network: calls the agent directly, and
// breaks before or after any call or chunk, loses replies, damages chunks, lets
// chunks arrive after the sender has given up, and kills the sender.
//
// One object is one sender process. Used by one thread at a time.
#ifndef SNAPSYNC_TESTS_SIMULATION_NETWORK_H_
#define SNAPSYNC_TESTS_SIMULATION_NETWORK_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "sender/agent_client.h"
#include "tests/simulation/agent.h"
#include "tests/simulation/machine.h"
#include "tests/simulation/oracle.h"

namespace snapsync::simulation {

struct Clock {
  std::chrono::steady_clock::time_point now{std::chrono::hours(1)};
};

class Network final : public AgentClient {
 public:
  // `outside` is called at each point where the world outside may act.
  Network(std::string peer, Machine* machine, Agent* agent, Oracle* oracle,
          Clock* clock, std::function<void()> outside)
      : peer_(std::move(peer)),
        machine_(machine),
        agent_(agent),
        oracle_(oracle),
        clock_(clock),
        outside_(std::move(outside)) {}

  absl::StatusOr<VolumeState> Describe(const std::string& volume) override;
  absl::StatusOr<SessionGrant> OpenSession(
      const SessionRequest& request) override;
  absl::StatusOr<std::unique_ptr<SegmentStream>> StartSegment(
      const std::string& volume, const Id128& session, uint64_t first) override;
  absl::StatusOr<Receipt> CommitSession(const CommitRequest& request) override;
  absl::StatusOr<Id128> HashBlocks(const HashRequest& request,
                                   const HashSink& sink) override;
  void Cancel() override { killed_ = true; }

  // The sender's process is gone: nothing of it has an effect any more.
  bool killed() const { return killed_; }
  // A chunk was damaged on the way.
  bool corrupted() const { return corrupted_; }
  // The agent said so; the sender may not have heard it.
  bool commit_reply_lost() const { return commit_reply_lost_; }

 private:
  friend class Stream;

  // Around each call: lets time pass and faults happen.
  absl::Status BeforeCall(const char* what);
  absl::Status AfterCall(const char* what);
  absl::Status Broken(const char* what);

  const std::string peer_;
  Machine* const machine_;
  Agent* const agent_;
  Oracle* const oracle_;
  Clock* const clock_;
  const std::function<void()> outside_;
  bool killed_ = false;
  bool corrupted_ = false;
  bool commit_reply_lost_ = false;
};

}  // namespace snapsync::simulation

#endif  // SNAPSYNC_TESTS_SIMULATION_NETWORK_H_
