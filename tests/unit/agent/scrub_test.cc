// SPDX-License-Identifier: Apache-2.0
#include "agent/scrub.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "agent/replica.h"
#include "common/base/status_macros.h"
#include "tests/testing/memory_device.h"
#include "tests/testing/random.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync {
namespace {

constexpr uint64_t kSize = 20 * kCellBytes + 4096;

// A replica in a file, with all that an agent keeps of it.
class ScrubTest : public testing::Test {
 protected:
  ScrubTest() : contents_(kSize) {
    random_.Fill(contents_);
    Start();
  }

  void Start() {
    replica_.reset();
    auto store = OpenFileSessionStore(folder_ / "state");
    ASSERT_THAT(store, IsOk());
    store_ = *std::move(store);
    ReplicaOptions options;
    options.volume = "vol";
    options.kind = "file";
    options.manifest = manifest_;
    options.unix_seconds = [] { return int64_t{1}; };
    replica_ = std::make_unique<Replica>(options, MakeFileTarget(path()),
                                         store_.get());
    ASSERT_THAT(replica_->Recover(), IsOk());
  }

  std::string path() const { return folder_ / "vol.raw"; }
  std::string manifest() const {
    return folder_ / "state/targets/vol.manifest";
  }

  // Sends `extents` of contents_, a chunk for each; `until` chunks of them.
  absl::StatusOr<SegmentAck> Send(const SessionGrant& grant,
                                  const std::vector<Extent>& extents,
                                  uint64_t until) {
    SNAPSYNC_ASSIGN_OR_RETURN(const auto session,
                              replica_->Find(grant.session, "nas1"));
    SNAPSYNC_ASSIGN_OR_RETURN(const auto segment,
                              session->StartSegment(grant.watermark));
    for (uint64_t i = grant.watermark; i < until; ++i) {
      Chunk chunk;
      chunk.index = i;
      chunk.pieces = {{extents[i].offset, extents[i].length, PieceKind::kData}};
      chunk.data =
          std::span(contents_).subspan(extents[i].offset, extents[i].length);
      chunk.checksum = ChecksumOf(chunk);
      SNAPSYNC_RETURN_IF_ERROR(segment->Add(chunk));
    }
    return segment->Finish();
  }
  SessionRequest Request(const Id128& base, size_t chunks) {
    SessionRequest request;
    request.volume = "vol";
    request.replication = "nightly";
    request.source = "nas1:/dev/vg/vol";
    request.base = base;
    request.generation = random_.Id();
    request.source_size = kSize;
    random_.Fill(request.plan_digest);
    request.chunk_count = chunks;
    request.covers_all = base.none();
    return request;
  }
  absl::Status Commit(const SessionGrant& grant, const SegmentAck& ack) {
    return replica_
        ->Commit({"vol", grant.session, ack.watermark, ack.digest}, "nas1")
        .status();
  }
  Id128 Sync(const Id128& base, const std::vector<Extent>& extents) {
    const SessionRequest request = Request(base, extents.size());
    const auto grant = replica_->Open(request, "nas1");
    EXPECT_THAT(grant, IsOk());
    const auto ack = Send(*grant, extents, extents.size());
    EXPECT_THAT(ack, IsOk());
    EXPECT_THAT(Commit(*grant, *ack), IsOk());
    return request.generation;
  }
  Id128 FirstSync() {
    return Sync(
        {}, {{0, 10 * kCellBytes}, {10 * kCellBytes, kSize - 10 * kCellBytes}});
  }
  void Renew(Extent extent) {
    random_.Fill(std::span(contents_).subspan(extent.offset, extent.length));
  }

  ScrubProgress Scrub(const ScrubOptions& options = {}) {
    damaged_.clear();
    const auto done =
        RunScrub(*replica_, options, [this](const ScrubProgress& progress) {
          damaged_.insert(damaged_.end(), progress.damaged.begin(),
                          progress.damaged.end());
          return absl::OkStatus();
        });
    EXPECT_THAT(done, IsOk());
    return done.value_or(ScrubProgress{});
  }

  // A bit of the file, by nobody: what a disk does.
  void Flip(uint64_t offset) { FlipIn(path(), offset); }
  static void FlipIn(const std::string& path, uint64_t offset) {
    const auto times = std::filesystem::last_write_time(path);
    std::string contents = ContentsOf(path);
    contents[offset] = static_cast<char>(contents[offset] ^ 4);
    WriteContents(path, contents);
    std::filesystem::last_write_time(path, times);
  }

  Random random_{3};
  TemporaryFolder folder_;
  std::vector<std::byte> contents_;
  bool manifest_ = true;
  std::unique_ptr<SessionStore> store_;
  std::unique_ptr<Replica> replica_;
  std::vector<Extent> damaged_;
};

TEST_F(ScrubTest, WhatWasWrittenIsCompared) {
  const Id128 first = FirstSync();
  ScrubProgress done = Scrub();
  EXPECT_EQ(done.generation.generation, first);
  EXPECT_EQ(done.compared, kSize);
  EXPECT_EQ(done.recorded, 0U);
  EXPECT_EQ(done.damaged_bytes, 0U);
  EXPECT_EQ(done.next, kSize);

  Renew({5 * kCellBytes, 2 * kCellBytes});
  const Id128 second = Sync(first, {{5 * kCellBytes, 2 * kCellBytes}});
  done = Scrub();
  EXPECT_EQ(done.generation.generation, second);
  EXPECT_EQ(done.compared, kSize);
  EXPECT_EQ(done.damaged_bytes, 0U);
}

TEST_F(ScrubTest, NothingIsSaidOfAVolumeThatHoldsNoGeneration) {
  ScrubProgress progress;
  EXPECT_THAT(replica_->ScrubStep(kMiB, progress),
              FailsWith(Reason::kTargetUnsuitable, "no whole generation"));
}

TEST_F(ScrubTest, WhatIsWrittenInPartIsRecordedAndComparedTheNextTime) {
  const Id128 first = FirstSync();
  Renew({7 * kCellBytes + 512, 1024});
  Sync(first, {{7 * kCellBytes + 512, 1024}});
  EXPECT_EQ(Scrub().recorded, kCellBytes);
  EXPECT_EQ(Scrub().compared, kSize);
}

TEST_F(ScrubTest, ALostManifestIsMadeAnew) {
  FirstSync();
  ASSERT_TRUE(std::filesystem::remove(manifest()));
  EXPECT_EQ(Scrub().recorded, kSize);
  EXPECT_EQ(Scrub().compared, kSize);
}

TEST_F(ScrubTest, ADamagedManifestIsToldAndMadeAnew) {
  FirstSync();
  FlipIn(manifest(), 9);  // in the head
  ScrubProgress done = Scrub();
  EXPECT_EQ(done.damaged_manifest, 1U);
  EXPECT_EQ(done.recorded, kSize);
  FlipIn(manifest(), 4100);
  done = Scrub();
  EXPECT_GE(done.damaged_manifest, 1U);
  EXPECT_EQ(done.damaged_bytes, 0U);
  done = Scrub();
  EXPECT_EQ(done.damaged_manifest, 0U);
  EXPECT_EQ(done.compared, kSize);
}

TEST_F(ScrubTest, AScrubCanBeginLaterAndBeRenewed) {
  FirstSync();
  ScrubOptions options;
  options.from = 18 * kCellBytes + 5;
  EXPECT_EQ(Scrub(options).compared, kSize - 18 * kCellBytes);
  options.from = kSize + 100;
  EXPECT_EQ(Scrub(options).compared, 0U);
  options.from = 0;
  options.renew = true;
  EXPECT_EQ(Scrub(options).recorded, kSize);
}

TEST_F(ScrubTest, ACancelledScrubSaysWhereItCanGoOn) {
  FirstSync();
  ScrubOptions options;
  options.step_bytes = 2 * kCellBytes;
  options.bytes_per_second = 1;
  options.cancelled = [] { return true; };
  const auto report = [](const ScrubProgress&) { return absl::OkStatus(); };
  EXPECT_THAT(RunScrub(*replica_, options, report),
              FailsWith(Reason::kConnection, "--from 131072"));
}

TEST_F(ScrubTest, AScrubGoesOnInTheGenerationThatIsTheNewestByThen) {
  const Id128 first = FirstSync();
  Renew({5 * kCellBytes, 10 * kCellBytes});
  Id128 second;
  ScrubOptions options;
  options.step_bytes = 7 * kCellBytes;
  const auto done =
      RunScrub(*replica_, options, [&](const ScrubProgress& progress) {
        EXPECT_TRUE(progress.damaged.empty());
        if (second.none()) {
          second = Sync(first, {{5 * kCellBytes, 10 * kCellBytes}});
        }
        return absl::OkStatus();
      });
  ASSERT_THAT(done, IsOk());
  EXPECT_EQ(done->generation.generation, second);
  EXPECT_EQ(done->compared, kSize);
}

TEST_F(ScrubTest, ASessionThatIsInterruptedKeepsTheManifest) {
  const Id128 first = FirstSync();
  Renew({0, 4 * kCellBytes});
  const std::vector<Extent> extents = {{0, 2 * kCellBytes},
                                       {2 * kCellBytes, 2 * kCellBytes}};
  const SessionRequest request = Request(first, 2);
  auto grant = replica_->Open(request, "nas1");
  ASSERT_THAT(grant, IsOk());
  ASSERT_THAT(Send(*grant, extents, 1), IsOk());
  // The file is still of the old generation.
  EXPECT_EQ(Scrub().compared, kSize);
  EXPECT_TRUE(damaged_.empty());
  Start();
  grant = replica_->Open(request, "nas1");
  ASSERT_THAT(grant, IsOk());
  ASSERT_EQ(grant->watermark, 1U);
  const auto ack = Send(*grant, extents, 2);
  ASSERT_THAT(ack, IsOk());
  ASSERT_THAT(Commit(*grant, *ack), IsOk());
  EXPECT_EQ(Scrub().compared, kSize);
  EXPECT_TRUE(damaged_.empty());
}

TEST_F(ScrubTest, ALostLogCostsTheManifestNotTheSync) {
  const Id128 first = FirstSync();
  Renew({0, 4 * kCellBytes});
  const std::vector<Extent> extents = {{0, 2 * kCellBytes},
                                       {2 * kCellBytes, 2 * kCellBytes}};
  const SessionRequest request = Request(first, 2);
  auto grant = replica_->Open(request, "nas1");
  ASSERT_THAT(grant, IsOk());
  ASSERT_THAT(Send(*grant, extents, 1), IsOk());
  std::filesystem::resize_file(folder_ / "state/targets/vol.manifest-log", 40);
  Start();
  grant = replica_->Open(request, "nas1");
  ASSERT_THAT(grant, IsOk());
  const auto ack = Send(*grant, extents, 2);
  ASSERT_THAT(ack, IsOk());
  ASSERT_THAT(Commit(*grant, *ack), IsOk());
  EXPECT_FALSE(std::filesystem::exists(manifest()));
  EXPECT_EQ(Scrub().recorded, kSize);
}

TEST_F(ScrubTest, WhatBecomesAGenerationByComparingIsNotKnown) {
  FirstSync();
  WriteContents(path(), std::string(kSize, 'x'));
  HashRequest request;
  request.volume = "vol";
  request.replication = "nightly";
  request.source = "nas1:/dev/vg/vol";
  request.source_size = kSize;
  request.allow_overwrite = true;
  ASSERT_THAT(replica_->StartHash(request, "nas1"), IsOk());
  const ScrubProgress done = Scrub();
  EXPECT_EQ(done.recorded, kSize);
  EXPECT_EQ(done.damaged_bytes, 0U);
}

TEST_F(ScrubTest, WithoutManifestsNothingIsKept) {
  manifest_ = false;
  Start();
  FirstSync();
  EXPECT_FALSE(std::filesystem::exists(manifest()));
  ScrubProgress progress;
  EXPECT_THAT(replica_->ScrubStep(kMiB, progress),
              FailsWith(Reason::kTargetUnsuitable, "manifests"));
}

// Bits of what was written, one at a time: each is found, in its cell.
TEST_F(ScrubTest, EachFlippedBitOfAGenerationIsFound) {
  FirstSync();
  const auto open = OpenHostFolder(folder_ / "state/targets");
  ASSERT_THAT(open, IsOk());
  const auto manifest = Manifest::Open(**open, "vol.manifest");
  ASSERT_THAT(manifest, IsOk());
  ASSERT_NE(*manifest, nullptr);
  auto device = std::make_shared<MemoryDevice>(kSize);
  MemoryReader reader(device);
  for (int round = 0; round < 1000; ++round) {
    device->bytes = contents_;
    const uint64_t bit = random_.Below(kSize * 8);
    device->bytes[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    ScrubProgress progress;
    ASSERT_THAT(ScrubCells(reader, **manifest, 0, CellsOf(kSize), progress),
                IsOk());
    ASSERT_EQ(progress.damaged.size(), 1U);
    EXPECT_EQ(progress.damaged[0].offset, bit / 8 / kCellBytes * kCellBytes);
    EXPECT_EQ(progress.damaged_bytes, progress.damaged[0].length);
  }
}

// A disk that can't read one sector.
class BadSectorReader final : public BlockReader {
 public:
  BadSectorReader(std::shared_ptr<MemoryDevice> device, uint64_t bad)
      : reader_(std::move(device)), bad_(bad) {}
  const std::string& name() const override { return reader_.name(); }
  uint64_t size() const override { return reader_.size(); }
  absl::Status Read(std::span<const ReadOperation> operations) override {
    for (const ReadOperation& read : operations) {
      if (bad_ >= read.offset && bad_ - read.offset < read.data.size()) {
        return Error(Reason::kIo, "bad sector");
      }
    }
    return reader_.Read(operations);
  }

 private:
  MemoryReader reader_;
  const uint64_t bad_;
};

TEST_F(ScrubTest, WhatCantBeReadIsDamagedAndHidesNothingElse) {
  FirstSync();
  const auto open = OpenHostFolder(folder_ / "state/targets");
  ASSERT_THAT(open, IsOk());
  const auto manifest = Manifest::Open(**open, "vol.manifest");
  ASSERT_THAT(manifest, IsOk());
  auto device = std::make_shared<MemoryDevice>(kSize);
  device->bytes = contents_;
  device->bytes[9 * kCellBytes] ^= std::byte{1};
  BadSectorReader reader(device, 4 * kCellBytes + 512);
  ScrubProgress progress;
  ASSERT_THAT(ScrubCells(reader, **manifest, 0, CellsOf(kSize), progress),
              IsOk());
  EXPECT_THAT(progress.damaged,
              testing::ElementsAre(Extent{4 * kCellBytes, kCellBytes},
                                   Extent{9 * kCellBytes, kCellBytes}));
  EXPECT_EQ(progress.compared, kSize);
}

}  // namespace
}  // namespace snapsync
