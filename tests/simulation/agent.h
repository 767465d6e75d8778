// SPDX-License-Identifier: Apache-2.0
//
// The agent process on the simulated machine: starts again after each death,
// as a service manager would start it, and takes uploads (what the gRPC service
// does with one call of Push). Also the agent's side of the network: what was
// sent may arrive late, after the sender has given up.
//
// Used by one thread at a time.
#ifndef SNAPSYNC_TESTS_SIMULATION_AGENT_H_
#define SNAPSYNC_TESTS_SIMULATION_AGENT_H_

#include <deque>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/replica.h"
#include "agent/session.h"
#include "tests/simulation/machine.h"
#include "tests/simulation/oracle.h"
#include "tests/simulation/store.h"
#include "tests/simulation/volume.h"

namespace snapsync::simulation {

// A chunk on its way: owns its bytes.
struct ChunkInFlight {
  explicit ChunkInFlight(const Chunk& sent)
      : chunk(sent), bytes(sent.data.begin(), sent.data.end()) {
    chunk.data = bytes;
  }
  ChunkInFlight(ChunkInFlight&&) = default;
  Chunk chunk;
  std::vector<std::byte> bytes;
};

// One segment, seen from the agent.
struct Upload {
  std::string peer;
  Id128 session;
  std::deque<ChunkInFlight> in_flight;
  bool closed = false;  // the sender's last chunk is in flight or arrived
  bool has_sender = true;
  bool slow = false;  // may arrive when the sender is generations further
  std::optional<absl::StatusOr<SegmentAck>> result;
  std::shared_ptr<Session> live;
  std::unique_ptr<Session::Segment> segment;  // destroyed before `live`
  uint64_t first = 0;
  // For Lie::kLateChunksWritten.
  std::shared_ptr<Disk> stage;
  std::vector<ChunkInFlight> arrived;
};

class Agent {
 public:
  Agent(Machine* machine, StateDirectory* directory, Volume* volume,
        Oracle* oracle);

  // Starts the agent if it is dead, as often as it takes.
  Replica& replica();

  std::shared_ptr<Upload> NewUpload(const std::string& peer,
                                    const Id128& session);
  // The next chunk arrives.
  void Deliver(Upload& upload);
  // All of it arrives, and the agent answers.
  void Complete(const std::shared_ptr<Upload>& upload);
  // The call ends without an answer, and the agent sees it.
  static void Drop(Upload& upload);

  // Uploads without a sender: something of one of them may arrive.
  void LetLateChunksArrive();
  bool has_late_uploads() const { return !late_.empty(); }
  void MakeLate(const std::shared_ptr<Upload>& upload);
  // The agent notices that their connections are gone.
  void DropLateUploads();

 private:
  void Start();
  static void WriteDespiteFence(const Upload& upload);

  Machine* const machine_;
  StateDirectory* const directory_;
  Volume* const volume_;
  Oracle* const oracle_;
  std::unique_ptr<SimulatedStore> store_;
  std::unique_ptr<Replica> replica_;
  std::list<std::shared_ptr<Upload>> uploads_;
  std::list<std::shared_ptr<Upload>> late_;
};

}  // namespace snapsync::simulation

#endif  // SNAPSYNC_TESTS_SIMULATION_AGENT_H_
