// SPDX-License-Identifier: Apache-2.0
//
// Listens, and accepts connections on behalf of a server: Debian's gRPC 1.51
// never accepts again after it ran out of descriptors once (CVE-2023-4785), so
// that anybody, without a certificate, could end an agent.
//
// What is open at a time is bounded, for each address and for all together, so
// that one can't keep the others out; a part of the process's descriptors is
// left for its own files. What is beyond is closed at once, and logged once in
// a while.
//
// One thread of its own. Thread-safe.
#ifndef SNAPSYNC_AGENT_ACCEPTOR_H_
#define SNAPSYNC_AGENT_ACCEPTOR_H_

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"

namespace snapsync {

class Acceptor {
 public:
  static constexpr size_t kOpenPerAddress = 64;
  static constexpr size_t kOpen = 512;
  // Descriptors of the process that no connection gets.
  static constexpr int kOwnDescriptors = 128;

  // Takes a connection over, and closes it in the end; on the acceptor's
  // thread.
  using Sink = std::function<void(int listener, int connection)>;

  // Listens on all `addresses`, "HOST:PORT" (also "[IPV6]:PORT"; port 0: any).
  // kConfiguration with the address when one can't be listened on.
  static absl::StatusOr<std::unique_ptr<Acceptor>> Listen(
      const std::vector<std::string>& addresses);
  ~Acceptor() { Stop(); }
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  // As they were given, with the ports that were chosen.
  const std::vector<std::string>& addresses() const { return addresses_; }

  // Accepts from now on. Called once.
  void Start(Sink sink);
  // Accepts no more.
  void Stop();

 private:
  // Who takes a connection over does not tell when it is closed: then its
  // descriptor is free, or another file.
  struct Open {
    std::string peer;
    uint64_t inode = 0;
  };

  Acceptor() = default;
  absl::Status Add(const std::string& address);
  void Run();
  void AcceptFrom(int listener);
  bool HasRoomFor(const std::string& peer);
  void LogRefusal(const std::string& what);

  std::vector<std::string> addresses_;
  std::vector<UniqueFd> listeners_;
  UniqueFd stop_;     // an eventfd
  UniqueFd reserve_;  // given up for a moment to refuse one more
  size_t most_ = 0;   // connections at a time
  Sink sink_;

  // Used by the thread alone.
  std::map<int, Open> open_;  // by descriptor
  std::chrono::steady_clock::time_point logged_;

  std::thread thread_;  // last: it uses the others
};

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_ACCEPTOR_H_
