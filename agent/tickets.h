// SPDX-License-Identifier: Apache-2.0
//
// Tickets: who may order a volume to be written (by `revert`) has no business
// with the agent that will write it, and that agent none with the volume. So
// the target gives a ticket to the first, for the second: bound to the node
// that shows it and to the volume. It is lost with the process.
//
// Thread-safe.
#ifndef SNAPSYNC_AGENT_TICKETS_H_
#define SNAPSYNC_AGENT_TICKETS_H_

#include <chrono>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "common/base/id128.h"
#include "common/base/mutex.h"

namespace snapsync {

class Tickets {
 public:
  using Time = std::chrono::steady_clock::time_point;
  // Unused for so long, a ticket is void.
  static constexpr std::chrono::minutes kIdle{10};
  // The oldest ones go first.
  static constexpr size_t kMost = 256;

  // 32 random bytes.
  std::string Issue(const std::string& peer, const std::string& volume,
                    Time now);

  // Whether `peer` may do to `volume` what the ticket is for. After a commit it
  // is good for nothing but asking for that commit's receipt again, by opening
  // `generation` (none: another call).
  bool Check(const std::string& ticket, const std::string& peer,
             const std::string& volume, const Id128& generation, Time now);

  // The ticket was used for what it is for.
  void Spend(const std::string& ticket, const Id128& generation);

 private:
  struct Ticket {
    std::string peer;
    std::string volume;
    Time last_used;
    Id128 committed;
  };
  void Forget(Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Mutex mutex_;
  std::map<std::string, Ticket> tickets_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_TICKETS_H_
