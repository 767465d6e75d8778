// SPDX-License-Identifier: Apache-2.0
//
// A replica on the ports of the simulation, without its faults, and a sender
// that is as simple as can be.
#ifndef SNAPSYNC_TESTS_UNIT_AGENT_REPLICA_FIXTURE_H_
#define SNAPSYNC_TESTS_UNIT_AGENT_REPLICA_FIXTURE_H_

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "agent/replica.h"
#include "common/base/units.h"
#include "gtest/gtest.h"
#include "tests/simulation/store.h"
#include "tests/simulation/volume.h"
#include "tests/testing/random.h"
#include "tests/testing/sparse_image.h"
#include "tests/testing/status_matchers.h"

namespace snapsync {

inline constexpr uint64_t kReplicaSize = kMiB;

class ReplicaTest : public testing::TestWithParam<bool> {
 protected:
  explicit ReplicaTest(bool in_place)
      : volume_(kReplicaSize, in_place, &machine_, &pool_) {
    volume_.OnSwitch([](const std::string&) {});
    volume_.OnSwitched([] {});
    Start();
  }
  ReplicaTest() : ReplicaTest(GetParam()) {}

  // The agent, after it ended in any way.
  void Start() {
    machine_.Boot();
    MakeReplica();
    ASSERT_THAT(replica_->Recover(), IsOk());
  }
  void MakeReplica() {
    replica_.reset();
    store_ = std::make_unique<simulation::SimulatedStore>(&directory_,
                                                          &machine_, nullptr);
    ReplicaOptions options;
    options.volume = "vol";
    options.kind = "simulated";
    // The ports of the simulation are for one thread.
    options.threads = false;
    options.unix_seconds = [] { return int64_t{1}; };
    replica_ = std::make_unique<Replica>(std::move(options), volume_.Open(),
                                         store_.get());
  }

  SessionRequest Request(const Id128& base) {
    SessionRequest request;
    request.volume = "vol";
    request.replication = "nightly";
    request.source = "nas1:/dev/vg/vol";
    request.base = base;
    request.generation = random_.Id();
    request.source_size = kReplicaSize;
    random_.Fill(request.plan_digest);
    request.chunk_count = 2;
    return request;
  }
  SessionRequest Full() {
    SessionRequest request = Request({});
    request.covers_all = true;
    return request;
  }

  // Chunk i is a sector of its own.
  absl::StatusOr<SegmentAck> Send(const SessionGrant& grant, uint64_t end,
                                  const std::string& peer = "alice") {
    const auto session = replica_->Find(grant.session, peer);
    if (!session.ok()) return session.status();
    auto segment = (*session)->StartSegment(grant.watermark);
    if (!segment.ok()) return segment.status();
    for (uint64_t i = grant.watermark; i < end; ++i) {
      if (absl::Status s = (*segment)->Add(MakeChunk(i)); !s.ok()) return s;
    }
    return (*segment)->Finish();
  }
  Chunk MakeChunk(uint64_t index) {
    Chunk chunk;
    chunk.index = index;
    chunk.pieces = {{index * 512, 512, PieceKind::kData}};
    data_.resize(512);
    random_.Fill(data_);
    chunk.data = data_;
    chunk.checksum = ChecksumOf(chunk);
    return chunk;
  }
  absl::StatusOr<Receipt> Sync(const SessionRequest& request) {
    const auto grant = replica_->Open(request, "alice");
    if (!grant.ok()) return grant.status();
    const auto ack = Send(*grant, request.chunk_count);
    if (!ack.ok()) return ack.status();
    return replica_->Commit(
        {"vol", grant->session, request.chunk_count, ack->digest}, "alice");
  }
  // A volume that holds a generation; its request.
  SessionRequest FirstSync() {
    SessionRequest request = Full();
    EXPECT_THAT(Sync(request), IsOk());
    return request;
  }
  // A sync of which the agent is killed when its commit has begun.
  void KillInCommit(const SessionRequest& request) {
    const auto grant = replica_->Open(request, "alice");
    ASSERT_THAT(grant, IsOk());
    const auto ack = Send(*grant, 2);
    ASSERT_THAT(ack, IsOk());
    machine_.OnStep([this] {
      if (state() == TargetState::kCommitting) machine_.Kill();
    });
    EXPECT_FALSE(
        replica_->Commit({"vol", grant->session, 2, ack->digest}, "alice")
            .ok());
    machine_.OnStep(nullptr);
    ASSERT_EQ(state(), TargetState::kCommitting);
  }
  void WriteAsStranger() { volume_.WriteAsStranger(1000, Sector()); }
  uint64_t Sector() {
    std::array<std::byte, kSectorBytes> bytes;
    random_.Fill(bytes);
    return pool_.NumberOf(bytes);
  }
  TargetState state() const { return directory_.record().state; }

  Random random_{1};
  SectorPool pool_;
  std::vector<std::byte> data_;
  simulation::Machine machine_{&random_, simulation::Lie::kNone, false};
  simulation::StateDirectory directory_{&machine_, &pool_};
  simulation::Volume volume_;
  std::unique_ptr<simulation::SimulatedStore> store_;
  std::unique_ptr<Replica> replica_;
};

class StagedReplicaTest : public ReplicaTest {
 protected:
  StagedReplicaTest() : ReplicaTest(false) {}
};

class InPlaceReplicaTest : public ReplicaTest {
 protected:
  InPlaceReplicaTest() : ReplicaTest(true) {}
};

}  // namespace snapsync

#endif  // SNAPSYNC_TESTS_UNIT_AGENT_REPLICA_FIXTURE_H_
