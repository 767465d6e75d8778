// SPDX-License-Identifier: Apache-2.0
//
// One bit flips: in memory, in what the agent keeps, in what it wrote. Each is
// found, or does nothing; none makes a volume wrong without a word.
//
// SNAPSYNC_FLIPS: how many (default 70), SNAPSYNC_SEED: which.
#include <algorithm>
#include <cstdlib>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "tests/testing/memory_device.h"
#include "tests/unit/agent/file_replica_fixture.h"

namespace snapsync {
namespace {

uint64_t FromEnvironment(const char* name, uint64_t fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::strtoull(text, nullptr, 10);
}

class BitFlipTest : public FileReplicaTest {
 public:
  std::string InState(const std::string& suffix) const {
    return folder_ / ("state/targets/vol." + suffix);
  }
  uint64_t BitOf(const std::string& path) {
    return random_.Below(std::filesystem::file_size(path) * 8);
  }

  // A delta of two segments, of which the first is durable.
  SessionGrant BeginDelta() {
    Renew({2 * kCellBytes, 6 * kCellBytes});
    extents_ = {{2 * kCellBytes, 3 * kCellBytes},
                {5 * kCellBytes, 3 * kCellBytes}};
    request_ = Request(generation_, 2);
    auto grant = replica_->Open(request_, "nas1");
    EXPECT_THAT(grant, IsOk());
    EXPECT_THAT(Send(*grant, extents_, 1), IsOk());
    grant->watermark = 1;
    return *grant;
  }
  absl::Status Finish(const SessionGrant& grant) {
    SNAPSYNC_ASSIGN_OR_RETURN(const SegmentAck ack, Send(grant, extents_, 2));
    SNAPSYNC_RETURN_IF_ERROR(Commit(grant, ack));
    generation_ = request_.generation;
    return absl::OkStatus();
  }
  absl::Status FinishAgain() {
    SNAPSYNC_ASSIGN_OR_RETURN(const SessionGrant grant,
                              replica_->Open(request_, "nas1"));
    return Finish(grant);
  }
  bool VolumeIsRight() const {
    const std::string found = ContentsOf(path());
    return found.size() == kSize &&
           std::equal(found.begin(), found.end(), contents_.begin(),
                      [](char a, std::byte b) {
                        return static_cast<std::byte>(a) == b;
                      });
  }
  // A whole new sync, so that the next flip finds all as it should be.
  void Heal() {
    std::filesystem::remove_all(folder_ / "state");
    std::filesystem::remove(path());
    std::filesystem::remove(folder_ / "vol.raw.snapsync-stage");
    Start();
    random_.Fill(contents_);
    generation_ = FirstSync();
  }

  // Each returns whether the flip was found.
  bool InAChunk();
  bool InTheJournal();
  bool InTheRecord();
  bool InTheManifest();
  bool InTheManifestLog();
  bool InTheStage();
  bool InTheGeneration();

 private:
  Id128 generation_;
  SessionRequest request_;
  std::vector<Extent> extents_;
};

bool BitFlipTest::InAChunk() {
  const SessionGrant grant = BeginDelta();
  const auto session = replica_->Find(grant.session, "nas1");
  EXPECT_THAT(session, IsOk());
  const auto segment = (*session)->StartSegment(1);
  EXPECT_THAT(segment, IsOk());
  const std::span<const std::byte> sent =
      std::span(contents_).subspan(extents_[1].offset, extents_[1].length);
  std::vector<std::byte> data(sent.begin(), sent.end());
  Chunk chunk;
  chunk.index = 1;
  chunk.pieces = {{extents_[1].offset, extents_[1].length, PieceKind::kData}};
  chunk.data = data;
  chunk.checksum = ChecksumOf(chunk);
  const uint64_t bit = random_.Below(data.size() * 8);
  data[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
  return ReasonOf((*segment)->Add(chunk)) == Reason::kVerification;
}

bool BitFlipTest::InTheJournal() {
  BeginDelta();
  replica_.reset();
  // The record of the first segment, in the slot that is not zero any more.
  const std::string journal = ContentsOf(InState("journal"));
  std::vector<uint64_t> slots;
  for (uint64_t at = 0; at < journal.size(); at += Journal::kSlotBytes) {
    if (journal[at] != 0) slots.push_back(at);
  }
  // Of another session, or of this one (written anew at each opening).
  const uint64_t slot = slots[random_.Below(slots.size())];
  FlipIn(InState("journal"), (slot + random_.Below(76)) * 8 + random_.Below(8));
  Start();
  const auto grant = replica_->Open(request_, "nas1");
  if (!grant.ok()) return true;
  // Not more than is there; and what is sent again is right.
  EXPECT_LE(grant->watermark, 1U);
  EXPECT_THAT(Finish(*grant), IsOk());
  return VolumeIsRight();
}

bool BitFlipTest::InTheRecord() {
  replica_.reset();
  FlipIn(InState("state"), BitOf(InState("state")));
  auto store = OpenFileSessionStore(folder_ / "state");
  EXPECT_THAT(store, IsOk());
  return !(*store)->Load("vol").ok();
}

bool BitFlipTest::InTheManifest() {
  // What lies between head and sectors counts for nothing.
  const uint64_t size = std::filesystem::file_size(InState("manifest"));
  const uint64_t byte = random_.Below(36 + size - 4096);
  FlipIn(InState("manifest"),
         (byte < 36 ? byte : byte - 36 + 4096) * 8 + random_.Below(8));
  const ScrubProgress done = Scrub();
  return done.damaged_manifest > 0 && done.damaged_bytes == 0;
}

bool BitFlipTest::InTheManifestLog() {
  BeginDelta();
  replica_.reset();
  FlipIn(InState("manifest-log"), BitOf(InState("manifest-log")));
  Start();
  EXPECT_THAT(FinishAgain(), IsOk());
  // It is not trusted, and nothing is said to be damaged that is not.
  const bool dropped = !std::filesystem::exists(InState("manifest"));
  return VolumeIsRight() && dropped && Scrub().damaged_bytes == 0;
}

bool BitFlipTest::InTheStage() {
  const SessionGrant grant = BeginDelta();
  const uint64_t bit =
      extents_[0].offset * 8 + random_.Below(extents_[0].length * 8);
  FlipIn(folder_ / "vol.raw.snapsync-stage", bit);
  EXPECT_THAT(Finish(grant), IsOk());
  Scrub();
  return damaged_.size() == 1 && damaged_[0].offset <= bit / 8 &&
         bit / 8 < damaged_[0].end();
}

// On a disk of its own: a file can't be changed without its times.
bool BitFlipTest::InTheGeneration() {
  const auto disk = std::make_shared<MemoryDevice>(kSize);
  disk->bytes = contents_;
  const uint64_t bit = random_.Below(kSize * 8);
  disk->bytes[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
  const auto state = OpenHostFolder(folder_ / "state/targets");
  EXPECT_THAT(state, IsOk());
  const auto manifest = Manifest::Open(**state, "vol.manifest");
  EXPECT_THAT(manifest, IsOk());
  MemoryReader reader(disk);
  ScrubProgress done;
  EXPECT_THAT(ScrubCells(reader, **manifest, 0, CellsOf(kSize), done), IsOk());
  return done.damaged.size() == 1 && done.damaged[0].offset <= bit / 8 &&
         bit / 8 < done.damaged[0].end();
}

TEST_F(BitFlipTest, EachIsFoundOrDoesNothing) {
  const uint64_t flips = FromEnvironment("SNAPSYNC_FLIPS", 70);
  const uint64_t seed = FromEnvironment("SNAPSYNC_SEED", 11);
  const std::vector<std::pair<const char*, bool (BitFlipTest::*)()>> places = {
      {"chunk", &BitFlipTest::InAChunk},
      {"journal", &BitFlipTest::InTheJournal},
      {"record", &BitFlipTest::InTheRecord},
      {"manifest", &BitFlipTest::InTheManifest},
      {"manifest-log", &BitFlipTest::InTheManifestLog},
      {"stage", &BitFlipTest::InTheStage},
      {"generation", &BitFlipTest::InTheGeneration}};
  uint64_t lost = 0;
  for (uint64_t flip = 0; flip < flips; ++flip) {
    random_ = Random(seed + flip);
    Heal();
    const auto& [name, run] = places[flip % places.size()];
    if ((this->*run)()) continue;
    ++lost;
    ADD_FAILURE() << "a flip in the " << name
                  << " was not found: SNAPSYNC_SEED=" << seed + flip
                  << " SNAPSYNC_FLIPS=1";
  }
  // In one write, since others may run beside it.
  std::cerr << absl::StrCat("SNAPSYNC_SEED=", seed,
                            "\nreport: bit flips in chunk, journal, record, "
                            "manifest, its log, stage and generation | ",
                            flips, " | ", lost, "\n");
}

}  // namespace
}  // namespace snapsync
