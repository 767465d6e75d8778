// SPDX-License-Identifier: Apache-2.0
#include "agent/scrub.h"

#include <filesystem>

#include "tests/testing/memory_device.h"
#include "tests/unit/agent/file_replica_fixture.h"

namespace snapsync {
namespace {

using ScrubTest = FileReplicaTest;

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
  FlipIn(manifest(), 9 * 8);  // in the head
  ScrubProgress done = Scrub();
  EXPECT_EQ(done.damaged_manifest, 1U);
  EXPECT_EQ(done.recorded, kSize);
  FlipIn(manifest(), 4100 * 8);
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
