// SPDX-License-Identifier: Apache-2.0
//
// Brings a plan to an agent: opens the session, sends segment after segment
// from the agent's watermark on, and commits. While the agent flushes a segment
// the next one is on its way. After a broken connection it waits, opens the
// session again and goes on at the watermark, until nothing has moved for
// `retry_for`.
//
// Used by one thread at a time.
#ifndef SNAPSYNC_SENDER_PUMP_H_
#define SNAPSYNC_SENDER_PUMP_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "common/block/block_device.h"
#include "common/transfer/plan.h"
#include "common/transfer/session_protocol.h"
#include "sender/agent_client.h"

namespace snapsync {

// What has happened so far, for a progress line.
struct PumpProgress {
  uint64_t done_bytes = 0;  // of the plan's changed and gone bytes, sent
  uint64_t total_bytes = 0;
  uint64_t sent_bytes = 0;  // data on the wire, without protocol
};

struct PumpOptions {
  // Give up when nothing became durable for so long; 0: never.
  std::chrono::nanoseconds retry_for = std::chrono::minutes(10);
  // As long as no call has ever succeeded (retrying_agent.h), the trouble is
  // rather a wrong address than a lost connection: give up sooner. 0: never.
  std::chrono::nanoseconds connect_for = std::chrono::seconds(10);
  // A segment ends after this time even if it is not full.
  std::chrono::nanoseconds segment_time = std::chrono::seconds(1);
  uint64_t bytes_per_second = 0;  // 0: no limit
  bool read_ahead = true;
  // So many bytes of the plan must be durable on the agent already, says the
  // operator; less there is refused, and more is gone on from.
  uint64_t resume_from_bytes = 0;
  // The clock and how to wait, so that the simulation has its own.
  std::function<std::chrono::steady_clock::time_point()> now;
  std::function<void(std::chrono::nanoseconds)> sleep;
  std::function<bool()> interrupted;                  // asked often
  std::function<void(const PumpProgress&)> progress;  // told often
  std::function<void(const std::string&)> notice;     // a line for people
};

struct PumpResult {
  Receipt receipt;
  uint64_t data_bytes = 0;          // sent by this call, all attempts
  uint64_t zero_bytes = 0;          // read as zeroes: not sent as data
  uint64_t gone_bytes = 0;          // not mapped on the source
  uint64_t resumed_from_bytes = 0;  // of the plan, where this call began
  bool was_committed = false;       // by an earlier call whose reply was lost
};

absl::StatusOr<PumpResult> Pump(AgentClient& client,
                                const SessionRequest& request, const Plan& plan,
                                BlockReader& source,
                                const PumpOptions& options);

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_PUMP_H_
