// SPDX-License-Identifier: Apache-2.0
//
// Exports as chains: what each file is called and rests on, and that each reads
// as its own generation at every instant, whatever is pruned.
#include "agent/targets/qcow2_target.h"
#include "common/base/status_macros.h"
#include "common/block/host_folder.h"
#include "common/qcow2/locks.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/recording_folder.h"
#include "tests/unit/agent/targets/qcow2_fixture.h"
#include "tests/unit/common/qcow2/running_qemu.h"

namespace snapsync {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::string NameOf(uint64_t number) {
  return "a.g" + std::to_string(number) + ".qcow2";
}

class Qcow2ChainTest : public Qcow2TargetTest {
 protected:
  static constexpr uint64_t kCluster = 4096;
  static constexpr uint64_t kDisk = 40 * kCluster + 512;

  Qcow2ChainTest() {
    options_.chain = true;
    options_.cluster_size = kCluster;
    options_.write_behind = false;
  }

  // Generations 1 to `count`, of sizes that grow and shrink. Each has writes
  // and zeroes over the one before.
  void MakeGenerations(uint64_t count) {
    for (uint64_t number = 1; number <= count; ++number) AddGeneration(number);
  }
  void AddGeneration(uint64_t number) {
    Random random(number);
    Bytes bytes = number == 1 ? Bytes() : contents_.back();
    bytes.resize(kDisk + number % 3 * 3 * kCluster + number % 2 * 512);
    const auto token = Make()->CreateStage(bytes.size(), number > 1);
    ASSERT_THAT(token, IsOk());
    {
      const auto writer = Make()->OpenStage(*token);
      ASSERT_THAT(writer, IsOk());
      const auto write = [&](uint64_t offset, const Bytes& part) {
        Write(**writer, offset, part);
        std::copy(part.begin(), part.end(),
                  bytes.begin() + static_cast<ptrdiff_t>(offset));
      };
      if (number == 1) write(0, RandomBytes(kDisk, 1));
      for (int i = 0; i < 4; ++i) {
        write(random.Below(60) * 1024, RandomBytes(9 * 1024, random.Next()));
        const Extent zeroed{random.Below(60) * 1024, 11 * 1024};
        ASSERT_THAT((*writer)->Zero(zeroed), IsOk());
        std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(zeroed.offset),
                    zeroed.length, std::byte{0});
      }
      ASSERT_THAT((*writer)->Flush(), IsOk());
    }
    const auto seal = Make()->Commit(*token, number, Id128::Random(), "");
    ASSERT_THAT(seal, IsOk());
    seal_ = *seal;
    contents_.push_back(bytes);
  }

  static ::testing::AssertionResult Holds(const std::string& folder,
                                          uint64_t number,
                                          const Bytes& contents) {
    const std::string path = folder + "/" + NameOf(number);
    const auto clean = IsCleanImage(path);
    return clean ? HasContents(path, contents) : clean;
  }

  std::vector<Bytes> contents_;  // of generation 1, 2, ...
  std::string seal_;
};

TEST_F(Qcow2ChainTest, EachGenerationIsAFileThatRestsOnTheOneBefore) {
  MakeGenerations(3);
  EXPECT_THAT(Names(), ElementsAre("a.g1.qcow2", "a.g2.qcow2", "a.g3.qcow2"));
  for (uint64_t number = 1; number <= 3; ++number) {
    EXPECT_TRUE(Holds(folder_.path(), number, contents_[number - 1]));
    const std::string info =
        RunQemu({"qemu-img", "info", "--output=json", Path(NameOf(number))});
    if (number == 1) {
      EXPECT_THAT(info, Not(HasSubstr("backing")));
      continue;
    }
    EXPECT_THAT(info, HasSubstr("\"backing-filename\": \"" +
                                NameOf(number - 1) + "\""));
    EXPECT_THAT(info, HasSubstr("\"backing-filename-format\": \"qcow2\""));
  }
}

TEST_F(Qcow2ChainTest, MovesAsAWhole) {
  MakeGenerations(3);
  const TemporaryFolder other;
  std::filesystem::copy(folder_.path(), other.path());
  const auto target = MakeQcow2Target(other / "a.qcow2", options_);
  EXPECT_THAT(target->CheckSeal(seal_), IsOk());
  EXPECT_TRUE(Holds(other.path(), 3, contents_[2]));
}

TEST_F(Qcow2ChainTest, AChangedFileBelowBreaksTheSeal) {
  MakeGenerations(3);
  EXPECT_THAT(Make()->CheckSeal(seal_), IsOk());
  RunQemu({"qemu-io", "-f", "qcow2", "-c", "write 0 512", Path(NameOf(2))});
  EXPECT_THAT(Make()->CheckSeal(seal_),
              FailsWith(Reason::kBaseMismatch, "a.g2.qcow2 changed"));
  EXPECT_THAT(Make()->CreateStage(kDisk, true),
              FailsWith(Reason::kBaseMismatch, "a.g2.qcow2 changed"));
}

TEST_F(Qcow2ChainTest, AMissingFileBelowBreaksTheSeal) {
  MakeGenerations(3);
  std::filesystem::rename(Path(NameOf(1)), Path("elsewhere"));
  EXPECT_THAT(Make()->CheckSeal(seal_),
              FailsWith(Reason::kBaseMismatch, "a.g1.qcow2 does not exist"));
  std::filesystem::copy_file(Path(NameOf(2)), Path(NameOf(1)));
  EXPECT_FALSE(Make()->CheckSeal(seal_).ok());
}

TEST_F(Qcow2ChainTest, PruningKeepsTheNewestWhateverTheirNumber) {
  for (const uint64_t keep : {1U, 2U, 3U, 4U, 5U, 9U}) {
    SCOPED_TRACE(keep);
    const TemporaryFolder copy(TemporaryFolder::InMemory());
    if (contents_.empty()) MakeGenerations(5);
    std::filesystem::copy(folder_.path(), copy.path());
    const auto target = MakeQcow2Target(copy / "a.qcow2", options_);
    ASSERT_THAT(target->Prune(5, keep), IsOk());
    for (uint64_t number = 1; number <= 5; ++number) {
      const bool kept = number + keep > 5;
      EXPECT_EQ(std::filesystem::exists(copy / NameOf(number)), kept);
      if (kept) {
        EXPECT_TRUE(Holds(copy.path(), number, contents_[number - 1]));
      }
    }
    EXPECT_THAT(target->CheckSeal(seal_), IsOk());
  }
}

TEST_F(Qcow2ChainTest, GenerationsGoOnWhileOldOnesArePruned) {
  for (uint64_t number = 1; number <= 12; ++number) {
    SCOPED_TRACE(number);
    AddGeneration(number);
    ASSERT_THAT(Make()->Prune(number, 3), IsOk());
    EXPECT_THAT(Make()->CheckSeal(seal_), IsOk());
    for (uint64_t kept = number > 3 ? number - 2 : 1; kept <= number; ++kept) {
      EXPECT_TRUE(Holds(folder_.path(), kept, contents_[kept - 1]));
    }
  }
  EXPECT_EQ(Names().size(), 3U);
}

TEST_F(Qcow2ChainTest, CompressedOnesAreFolded) {
  options_.compression = Qcow2Options::Compression::kZstd;
  MakeGenerations(4);
  ASSERT_THAT(Make()->Prune(4, 2), IsOk());
  EXPECT_TRUE(Holds(folder_.path(), 3, contents_[2]));
  EXPECT_TRUE(Holds(folder_.path(), 4, contents_[3]));
}

TEST_F(Qcow2ChainTest, ClustersOfAnotherSizeAreFolded) {
  MakeGenerations(2);
  options_.cluster_size = 64 << 10;
  AddGeneration(3);
  options_.cluster_size = 8 << 10;
  AddGeneration(4);
  EXPECT_TRUE(Holds(folder_.path(), 4, contents_[3]));
  ASSERT_THAT(Make()->Prune(4, 1), IsOk());
  EXPECT_TRUE(Holds(folder_.path(), 4, contents_[3]));
  EXPECT_THAT(Names(), ElementsAre("a.g4.qcow2"));
}

TEST_F(Qcow2ChainTest, AFullExportStartsAnewAndTheOldOnesGo) {
  MakeGenerations(2);
  Export(RandomBytes(kDisk, 99), 3);
  EXPECT_TRUE(Holds(folder_.path(), 2, contents_[1]));
  EXPECT_TRUE(Holds(folder_.path(), 3, RandomBytes(kDisk, 99)));
  ASSERT_THAT(Make()->Prune(3, 1), IsOk());
  EXPECT_THAT(Names(), ElementsAre("a.g3.qcow2"));
}

TEST_F(Qcow2ChainTest, FilesOfOthersAreNotTouched) {
  WriteContents(Path("a.g1.qcow2"), std::string(9000, 'p'));
  WriteContents(Path("a.g01.qcow2"), "x");
  Export(RandomBytes(kDisk, 1), 2);
  ASSERT_THAT(Make()->Prune(2, 1), IsOk());
  EXPECT_EQ(ContentsOf(Path("a.g1.qcow2")), std::string(9000, 'p'));
  EXPECT_THAT(Names(), ElementsAre("a.g01.qcow2", "a.g1.qcow2", "a.g2.qcow2"));
  EXPECT_THAT(Make()->Commit(Stage(kDisk, false, 0, RandomBytes(512, 1)), 1,
                             Id128::Random(), ""),
              FailsWith(Reason::kTargetUnsuitable, "in the way"));
}

TEST_F(Qcow2ChainTest, AChainThatReadersCantOpenIsNotMade) {
  for (uint64_t number = 1; number <= 16; ++number) AddGeneration(number);
  EXPECT_TRUE(Holds(folder_.path(), 16, contents_.back()));
  EXPECT_THAT(Make()->CreateStage(kDisk, true),
              FailsWith(Reason::kTargetUnsuitable, "keep fewer generations"));
  // More than there is room for is as many as there is room for.
  ASSERT_THAT(Make()->Prune(16, 1000), IsOk());
  AddGeneration(17);
  EXPECT_TRUE(Holds(folder_.path(), 17, contents_.back()));
}

TEST_F(Qcow2ChainTest, WhatQemuReadsIsNotFoldedBelowIt) {
  MakeGenerations(3);
  {
    const qcow2::OpenInQemu qemu(Path(NameOf(3)),
                                 qcow2::OpenInQemu::Mode::kReadOnly);
    EXPECT_THAT(Make()->Prune(3, 1), FailsWith(Reason::kBusy, "qemu-nbd"));
    EXPECT_TRUE(Holds(folder_.path(), 3, contents_[2]));
  }
  EXPECT_THAT(Make()->Prune(3, 1), IsOk());
  EXPECT_TRUE(Holds(folder_.path(), 3, contents_[2]));
}

// The power is cut between any two changes of a fold, and what was not flushed
// is lost, or half of it, or nothing, in turn; the kept generations read as
// they did, and the same call ends it.
TEST_F(Qcow2ChainTest, AFoldIsRightAtEveryInstant) {
  size_t turn = 0;
  for (const auto compression :
       {Qcow2Options::Compression::kNone, Qcow2Options::Compression::kZstd}) {
    const TemporaryFolder work(TemporaryFolder::InMemory());
    for (const std::string& name : Names()) {
      std::filesystem::remove(Path(name));
    }
    contents_.clear();
    options_.compression = compression;
    MakeGenerations(4);
    std::filesystem::copy(folder_.path(), work.path());
    Recording recording(work.path());
    const auto target = MakeQcow2Target(
        work / "a.qcow2", options_,
        [&]() -> absl::StatusOr<std::unique_ptr<HostFolder>> {
          SNAPSYNC_ASSIGN_OR_RETURN(auto real, OpenHostFolder(work.path()));
          return recording.Wrap(std::move(real));
        });
    ASSERT_THAT(target->Prune(4, 2), IsOk());
    for (size_t cut = 0; cut <= recording.size() && !HasFailure(); ++cut) {
      const double loss = 50.0 * static_cast<double>(turn++ % 3);
      SCOPED_TRACE("cut after change " + std::to_string(cut) + " of " +
                   std::to_string(recording.size()) + ", loss " +
                   std::to_string(loss) + " %");
      Random random(cut);
      const TemporaryFolder crashed(TemporaryFolder::InMemory());
      recording.MakeCrashed(cut, loss, loss, random, crashed.path());
      for (const uint64_t kept : {3U, 4U}) {
        ASSERT_TRUE(Holds(crashed.path(), kept, contents_[kept - 1]));
      }
      const auto again = MakeQcow2Target(crashed / "a.qcow2", options_);
      ASSERT_THAT(again->CheckSeal(seal_), IsOk());
      ASSERT_THAT(again->Prune(4, 2), IsOk());
      for (const uint64_t kept : {3U, 4U}) {
        ASSERT_TRUE(Holds(crashed.path(), kept, contents_[kept - 1]));
      }
      EXPECT_FALSE(std::filesystem::exists(crashed / NameOf(1)));
      EXPECT_FALSE(std::filesystem::exists(crashed / NameOf(2)));
    }
  }
}

}  // namespace
}  // namespace snapsync
