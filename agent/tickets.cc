// SPDX-License-Identifier: Apache-2.0
#include "agent/tickets.h"

#include <algorithm>

namespace snapsync {

std::string Tickets::Issue(const std::string& peer, const std::string& volume,
                           Time now) {
  std::string ticket;
  for (int half = 0; half < 2; ++half) {
    const Id128 random = Id128::Random();
    ticket.append(reinterpret_cast<const char*>(random.bytes.data()),
                  random.bytes.size());
  }
  MutexLock lock(&mutex_);
  Forget(now);
  tickets_[ticket] = Ticket{peer, volume, now, Id128{}};
  return ticket;
}

bool Tickets::Check(const std::string& ticket, const std::string& peer,
                    const std::string& volume, const Id128& generation,
                    Time now) {
  MutexLock lock(&mutex_);
  Forget(now);
  const auto found = tickets_.find(ticket);
  if (found == tickets_.end() || found->second.peer != peer ||
      found->second.volume != volume) {
    return false;
  }
  if (!found->second.committed.none() &&
      found->second.committed != generation) {
    return false;
  }
  found->second.last_used = now;
  return true;
}

void Tickets::Spend(const std::string& ticket, const Id128& generation) {
  MutexLock lock(&mutex_);
  const auto found = tickets_.find(ticket);
  if (found != tickets_.end()) found->second.committed = generation;
}

void Tickets::Forget(Time now) {
  std::erase_if(tickets_, [&](const auto& item) {
    return now - item.second.last_used > kIdle;
  });
  while (tickets_.size() >= kMost) {
    tickets_.erase(std::min_element(
        tickets_.begin(), tickets_.end(), [](const auto& a, const auto& b) {
          return a.second.last_used < b.second.last_used;
        }));
  }
}

}  // namespace snapsync
