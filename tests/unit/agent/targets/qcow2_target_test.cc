// SPDX-License-Identifier: Apache-2.0
//
// What only an export can meet, beyond the contract of all targets.
#include "agent/targets/qcow2_target.h"

#include <sys/stat.h>
#include <unistd.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/agent/targets/qcow2_fixture.h"
#include "tests/unit/common/qcow2/running_qemu.h"

namespace snapsync {
namespace {

using qcow2::OpenInQemu;
using ::testing::ElementsAre;

TEST_F(Qcow2TargetTest, LinksAndWhatIsNoFileAreRefusedAndLeftAlone) {
  WriteContents(Path("real"), "precious");
  ASSERT_EQ(::symlink("real", Path("a.qcow2").c_str()), 0);
  const auto expect_refused = [this](const std::string& words) {
    EXPECT_THAT(Make()->Inspect(), FailsWith(Reason::kTargetUnsuitable, words));
    EXPECT_THAT(Make()->CheckSeal("x"),
                FailsWith(Reason::kTargetUnsuitable, words));
    for (const bool from_base : {false, true}) {
      EXPECT_THAT(Make()->CreateStage(kSize, from_base),
                  FailsWith(Reason::kTargetUnsuitable, words));
    }
  };
  expect_refused("symbolic link");
  EXPECT_EQ(ContentsOf(Path("real")), "precious");
  std::filesystem::remove(Path("a.qcow2"));
  std::filesystem::create_hard_link(Path("real"), Path("a.qcow2"));
  expect_refused("2 names");
  std::filesystem::remove(Path("a.qcow2"));
  std::filesystem::create_directory(Path("a.qcow2"));
  expect_refused("no regular file");
  EXPECT_THAT(Names(), ElementsAre("a.qcow2", "real"));
}

TEST_F(Qcow2TargetTest, WhatIsInThePlaceOfTheStageIsNotRemoved) {
  const std::string precious(10'000, 'p');
  for (const char* name :
       {"a.qcow2.part", "a.qcow2.part.journal", "a.qcow2.update.journal"}) {
    WriteContents(Path(name), precious);
    EXPECT_THAT(Make()->CreateStage(kSize, false),
                FailsWith(Reason::kTargetUnsuitable, name));
    EXPECT_THAT(Make()->RemoveStage(""),
                FailsWith(Reason::kTargetUnsuitable, name));
    EXPECT_EQ(ContentsOf(Path(name)), precious);
    std::filesystem::remove(Path(name));
  }
}

TEST_F(Qcow2TargetTest, WhatACrashLeftOfAStageIsRemoved) {
  for (const char* name :
       {"a.qcow2.part", "a.qcow2.part.journal", "a.qcow2.update.journal"}) {
    WriteContents(Path(name), std::string(70, '\0'));
    EXPECT_THAT(Make()->RemoveStage(""), IsOk());
    EXPECT_THAT(Names(), ElementsAre());
  }
}

TEST_F(Qcow2TargetTest, AForeignFileIsNoBaseAndIsReplacedWhole) {
  RunQemu({"qemu-img", "create", "-q", "-f", "qcow2", Path("a.qcow2"), "7M"});
  ASSERT_EQ(::chmod(Path("a.qcow2").c_str(), 0644), 0);
  const std::string before = ContentsOf(Path("a.qcow2"));
  const auto facts = Make()->Inspect();
  ASSERT_THAT(facts, IsOk());
  EXPECT_FALSE(facts->blank);
  EXPECT_EQ(facts->size, 7U << 20);
  EXPECT_THAT(Make()->CreateStage(kSize, true),
              FailsWith(Reason::kBaseMismatch, "no export of SnapSync"));
  EXPECT_THAT(Make()->OpenReader(),
              FailsWith(Reason::kBaseMismatch, "no export of SnapSync"));
  EXPECT_EQ(ContentsOf(Path("a.qcow2")), before);
  Export(RandomBytes(kSize, 1));
  EXPECT_TRUE(HasContents(Path("a.qcow2"), RandomBytes(kSize, 1)));
  struct stat now {};
  ASSERT_EQ(::stat(Path("a.qcow2").c_str(), &now), 0);
  EXPECT_EQ(now.st_mode & 07777U, 0644U);
  EXPECT_THAT(Names(), ElementsAre("a.qcow2"));
}

TEST_F(Qcow2TargetTest, AnExportOfAnotherReplicationIsNoBase) {
  const std::string seal = Export(RandomBytes(kSize, 1));
  options_.replication = "another";
  for (const absl::Status& status :
       {Make()->CheckSeal(seal), Make()->CreateStage(kSize, true).status()}) {
    EXPECT_THAT(status, FailsWith(Reason::kBaseMismatch,
                                  "belongs to replication \"test\""));
  }
}

TEST_F(Qcow2TargetTest, WhatQemuOpenedForWritingIsNoBaseAnyMore) {
  const std::string seal = Export(RandomBytes(kSize, 1));
  { const OpenInQemu qemu(Path("a.qcow2"), OpenInQemu::Mode::kReadOnly); }
  RunQemu({"qemu-img", "check", "-q", Path("a.qcow2")});
  EXPECT_THAT(Make()->CheckSeal(seal), IsOk());
  { const OpenInQemu qemu(Path("a.qcow2"), OpenInQemu::Mode::kReadWrite); }
  for (const absl::Status& status :
       {Make()->CheckSeal(seal), Make()->CreateStage(kSize, true).status()}) {
    EXPECT_THAT(status,
                FailsWith(Reason::kBaseMismatch, "changed since export"));
  }
}

TEST_F(Qcow2TargetTest, QemuKeepsUsOutOfWhatItWritesTo) {
  Export(RandomBytes(kSize, 1));
  const std::string token = Stage(kSize, true, 0, RandomBytes(4096, 2));
  {
    const OpenInQemu qemu(Path("a.qcow2"), OpenInQemu::Mode::kReadWrite);
    EXPECT_THAT(Make()->OpenStage(token), FailsWith(Reason::kBusy, "qemu"));
    EXPECT_THAT(Make()->Commit(token, 2, Id128::Random(), ""),
                FailsWith(Reason::kBusy, ""));
    // It is theirs: nothing is given back below them.
    EXPECT_THAT(Make()->RemoveStage(token), IsOk());
  }
  EXPECT_TRUE(IsCleanImage(Path("a.qcow2")));
  EXPECT_TRUE(HasContents(Path("a.qcow2"), RandomBytes(kSize, 1)));
}

TEST_F(Qcow2TargetTest, QemuMayReadWhatIsUpdatedButNotWriteToIt) {
  const Bytes before = RandomBytes(kSize, 1);
  Export(before);
  const std::string token = Stage(kSize, true, 0, RandomBytes(kSize, 2));
  const auto writer = Make()->OpenStage(token);
  ASSERT_THAT(writer, IsOk());
  Write(**writer, 0, RandomBytes(kSize, 2));
  ASSERT_THAT((*writer)->Flush(), IsOk());
  EXPECT_TRUE(HasContents(Path("a.qcow2"), before));
  EXPECT_FALSE(qcow2::Succeeds(
      {"qemu-io", "-f", "qcow2", "-c", "write 0 512", Path("a.qcow2")}));
  EXPECT_TRUE(HasContents(Path("a.qcow2"), before));
}

TEST_F(Qcow2TargetTest, AReaderPutsTheCommitOffAndSeesOneGeneration) {
  const Bytes before = RandomBytes(kSize, 1);
  Export(before);
  const Bytes after = RandomBytes(kSize, 2);
  const std::string token = Stage(kSize, true, 0, after);
  const Id128 generation = Id128::Random();
  {
    const OpenInQemu qemu(Path("a.qcow2"), OpenInQemu::Mode::kReadOnly);
    EXPECT_THAT(Make()->Commit(token, 2, generation, ""),
                FailsWith(Reason::kBusy, "qemu-nbd"));
    EXPECT_TRUE(HasContents(Path("a.qcow2"), before));
  }
  EXPECT_THAT(Make()->Commit(token, 2, generation, ""), IsOk());
  EXPECT_TRUE(HasContents(Path("a.qcow2"), after));
}

// The session's writer may outlive the session in another thread.
TEST_F(Qcow2TargetTest, AWriterOfBeforeWritesNothingMore) {
  Export(RandomBytes(kSize, 1));
  for (const bool from_base : {false, true}) {
    const auto target = Make();
    const auto token = target->CreateStage(kSize, from_base);
    ASSERT_THAT(token, IsOk());
    const auto first = target->OpenStage(*token);
    ASSERT_THAT(first, IsOk());
    Write(**first, 0, RandomBytes(kSize, 2));
    const auto second = target->OpenStage(*token);
    ASSERT_THAT(second, IsOk());
    EXPECT_THAT((*first)->Zero({0, 512}),
                FailsWith(Reason::kConnection, "opened again"));
    EXPECT_THAT((*first)->Flush(),
                FailsWith(Reason::kConnection, "opened again"));
    Write(**second, 0, RandomBytes(kSize, 3));
    ASSERT_THAT((*second)->Flush(), IsOk());
    const uint64_t number = from_base ? 3 : 2;
    ASSERT_THAT(target->Commit(*token, number, Id128::Random(), ""), IsOk());
    EXPECT_THAT((*second)->Flush(),
                FailsWith(Reason::kConnection, "opened again"));
    EXPECT_TRUE(IsCleanImage(Path("a.qcow2")));
    EXPECT_TRUE(HasContents(Path("a.qcow2"), RandomBytes(kSize, 3)));
  }
}

TEST_F(Qcow2TargetTest, TheDiskMayBeLargerThanTheSource) {
  options_.virtual_size = 3 * kSize;
  Bytes bytes = RandomBytes(kSize, 1);
  const std::string seal = Export(bytes);
  bytes.resize(3 * kSize);
  EXPECT_TRUE(HasContents(Path("a.qcow2"), bytes));
  const Bytes change = RandomBytes(kSize / 2, 2);
  Change(kSize, 512, change, 2);
  std::copy(change.begin(), change.end(), bytes.begin() + 512);
  EXPECT_TRUE(HasContents(Path("a.qcow2"), bytes));
  options_.virtual_size = kSize - 512;
  EXPECT_THAT(Make()->CreateStage(kSize, false),
              FailsWith(Reason::kTargetUnsuitable, "less than the source's"));
}

TEST_F(Qcow2TargetTest, DisksThatCantBeAreRefused) {
  EXPECT_THAT(Make()->CreateStage(1000, false),
              FailsWith(Reason::kTargetUnsuitable, "whole sectors"));
  options_.cluster_size = 4096;
  EXPECT_THAT(Make()->CreateStage(uint64_t{16} << 40, false),
              FailsWith(Reason::kTargetUnsuitable, "choose larger ones"));
  EXPECT_THAT(Make()->CreateStage(~uint64_t{511}, false),
              FailsWith(Reason::kTargetUnsuitable, "choose larger ones"));
  for (const uint64_t size : {0U, 512U, 5000U, 4U << 20}) {
    options_.cluster_size = size;
    EXPECT_THAT(Make()->CreateStage(kSize, false),
                FailsWith(Reason::kUsage, "power of two"));
  }
  options_ = Qcow2Options();
  options_.replication = std::string(200, 'x');
  EXPECT_THAT(Make()->CreateStage(kSize, false),
              FailsWith(Reason::kUsage, "replication's name"));
  EXPECT_THAT(Names(), ElementsAre());
}

TEST_F(Qcow2TargetTest, AnUpdateKeepsTheFilesCompression) {
  using Compression = Qcow2Options::Compression;
  options_.compression = Compression::kZstd;
  Export(RandomBytes(kSize, 1));
  options_.compression = Compression::kZlib;
  EXPECT_THAT(Make()->CreateStage(kSize, true),
              FailsWith(Reason::kBaseMismatch, "zstd"));
  options_.compression = Compression::kNone;
  Change(kSize, 0, Bytes(kSize, std::byte{7}), 2);
  EXPECT_TRUE(HasContents(Path("a.qcow2"), Bytes(kSize, std::byte{7})));
  Export(RandomBytes(kSize, 1), 3);
  options_.compression = Compression::kZstd;
  EXPECT_THAT(Make()->CreateStage(kSize, true),
              FailsWith(Reason::kBaseMismatch, "zstd"));
  options_.compression = Compression::kZlib;
  Change(kSize, 0, Bytes(kSize, std::byte{8}), 4);
  EXPECT_TRUE(HasContents(Path("a.qcow2"), Bytes(kSize, std::byte{8})));
  EXPECT_TRUE(IsCleanImage(Path("a.qcow2")));
}

// What a crash between the switch and what follows it leaves.
TEST_F(Qcow2TargetTest, ACommitThatIsAskedForAgainGivesBackWhatIsUnused) {
  Export(RandomBytes(kSize, 1));
  const std::string token = Stage(kSize, true, 0, RandomBytes(kSize, 2));
  const std::string journal = ContentsOf(Path("a.qcow2.update.journal"));
  const Id128 generation = Id128::Random();
  const auto seal = Make()->Commit(token, 2, generation, "");
  ASSERT_THAT(seal, IsOk());
  const std::string committed = ContentsOf(Path("a.qcow2"));
  // As if nothing had been given back: garbage where the image has nothing.
  WriteContents(Path("a.qcow2.update.journal"), journal);
  const auto again = Make()->Commit(token, 2, generation, "");
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(*again, *seal);
  EXPECT_EQ(ContentsOf(Path("a.qcow2")) == committed, true);
  EXPECT_THAT(Names(), ElementsAre("a.qcow2"));
}

// A stage over generation 1 must not be found over generation 2.
TEST_F(Qcow2TargetTest, AStageOfAnotherGenerationIsNone) {
  Export(RandomBytes(kSize, 1));
  const std::string token = Stage(kSize, true, 0, RandomBytes(kSize, 2));
  const std::string journal = ContentsOf(Path("a.qcow2.update.journal"));
  const auto seal = Make()->Commit(token, 2, Id128::Random(), "");
  ASSERT_THAT(seal, IsOk());
  WriteContents(Path("a.qcow2.update.journal"), journal);
  EXPECT_THAT(Make()->OpenStage(token),
              FailsWith(Reason::kBaseMismatch, "is no longer generation"));
  EXPECT_THAT(Make()->Commit(token, 3, Id128::Random(), ""),
              FailsWith(Reason::kBaseMismatch, "is no longer generation"));
  EXPECT_THAT(Make()->RemoveStage(token), IsOk());
  EXPECT_THAT(Make()->CheckSeal(*seal), IsOk());
  EXPECT_TRUE(HasContents(Path("a.qcow2"), RandomBytes(kSize, 2)));
  EXPECT_TRUE(IsCleanImage(Path("a.qcow2")));
}

}  // namespace
}  // namespace snapsync
