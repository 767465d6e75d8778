// SPDX-License-Identifier: Apache-2.0
//
// What only a thin volume can meet: LVM's states, interrupted commits, and
// other people's commands. Runs in a guest (tests/system/targets_test.sh).
#include <cstdlib>
#include <fstream>

#include "agent/targets/target.h"
#include "common/base/aligned_buffer.h"
#include "common/base/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/contract/target_fixture.h"

namespace snapsync {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint64_t kBlock = 64 << 10;

class ThinTargetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string why;
    fixture_ = ThinKind().make(why);
    if (fixture_ == nullptr) GTEST_SKIP() << why;
    group_ = std::getenv("SNAPSYNC_TEST_GROUP");
  }

  std::unique_ptr<Target> Make() { return fixture_->Make(); }
  std::string path() const { return fixture_->path(); }
  std::string Volume(const std::string& name) const {
    return group_ + "/" + name;
  }
  Bytes Contents() const { return ReadAll(path()); }

  // "x y": names of the volumes that match, or another field of them.
  std::string Volumes(const std::string& selection,
                      const std::string& field = "lv_name") const {
    std::string text = Shell("lvs --noheadings -o " + field + " -S '" +
                             selection + "' " + group_ + " | xargs echo");
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
  }

  std::string WriteStage(uint32_t seed, bool from_base) {
    const auto token = Make()->CreateStage(fixture_->size(), from_base);
    EXPECT_TRUE(token.ok()) << token.status();
    const auto writer = Make()->OpenStage(*token);
    EXPECT_TRUE(writer.ok()) << writer.status();
    AlignedBuffer buffer(kBlock);
    const Bytes bytes = Pattern(kBlock, seed);
    std::copy(bytes.begin(), bytes.end(), buffer.data());
    const WriteOperation write{0, buffer.span()};
    EXPECT_TRUE((*writer)->Write({&write, 1}).ok());
    EXPECT_TRUE((*writer)->Flush().ok());
    return *token;
  }

  // Generation `number`, whose first block is Pattern(seed). Its seal.
  std::string CommitOne(uint64_t number, uint32_t seed) {
    const auto seal = Make()->Commit(WriteStage(seed, number > 1), number,
                                     Id128::Random(), "");
    EXPECT_TRUE(seal.ok()) << seal.status();
    return seal.value_or("");
  }

  void ExpectFirstBlock(uint32_t seed) {
    Bytes bytes = Contents();
    bytes.resize(kBlock);
    EXPECT_EQ(bytes, Pattern(kBlock, seed));
  }

  void ExpectReason(const absl::Status& status, Reason reason,
                    const std::string& words = "") {
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(ReasonOf(status), reason) << status;
    EXPECT_THAT(std::string(MessageOf(status)), HasSubstr(words));
  }

  std::unique_ptr<TargetFixture> fixture_;
  std::string group_;
};

TEST_F(ThinTargetTest, WhatIsNoWritableThinVolumeIsUnsuitable) {
  Shell("lvcreate -y -qq -an -Zn -L 4m -n thick " + group_);
  const auto other = fixture_->MakeOther();
  Shell("lvchange -qq -an " + Volume("other"));
  Shell("lvchange -qq -pr " + Volume("other"));
  ExpectReason(other->Inspect().status(), Reason::kTargetUnsuitable,
               "read-only");
  for (const char* name : {"thick", "pool", "missing"}) {
    const auto target =
        MakeThinTarget("/dev/" + Volume(name), ::testing::TempDir());
    ExpectReason(target->Inspect().status(), Reason::kTargetUnsuitable);
    ExpectReason(target->CreateStage(512, false).status(),
                 Reason::kTargetUnsuitable);
  }
  Shell("lvremove -y -qq -f " + Volume("thick"));
}

TEST_F(ThinTargetTest, AVolumeWithAnExternalOriginIsUnsuitable) {
  Shell("lvcreate -y -qq -an -Zn -L 4m -n thick " + group_);
  Shell("lvchange -qq -pr " + Volume("thick"));
  Shell("lvcreate -y -qq -s -n outside --thinpool " + Volume("pool") + " " +
        Volume("thick"));
  const auto target =
      MakeThinTarget("/dev/" + Volume("outside"), ::testing::TempDir());
  ExpectReason(target->Inspect().status(), Reason::kTargetUnsuitable,
               "external origin");
  Shell("lvremove -y -qq -f " + Volume("outside") + " " + Volume("thick"));
}

TEST_F(ThinTargetTest, AMountedVolumeIsBusyAndStaysAsItIs) {
  Shell("mkfs.ext4 -q -E nodiscard " + path() + " 3m");
  Shell("mkdir -p /run/mounted && mount " + path() + " /run/mounted");
  ExpectReason(Make()->Inspect().status(), Reason::kBusy,
               "mounted on /run/mounted");
  const auto token = Make()->CreateStage(fixture_->size(), false);
  ASSERT_TRUE(token.ok()) << token.status();
  ExpectReason(Make()->Commit(*token, 1, Id128::Random(), "").status(),
               Reason::kBusy, "mounted on /run/mounted");
  Shell("umount /run/mounted && fsck.ext4 -fn " + path());
}

TEST_F(ThinTargetTest, AFullPoolHasNoRoom) {
  Shell("lvcreate -y -qq --errorwhenfull y -L 4m --poolmetadatasize 2m -T " +
        Volume("small"));
  Shell("lvcreate -y -qq -V 8m -T " + Volume("small") + " -n wide");
  Shell("! dd if=/dev/zero of=/dev/" + Volume("wide") + " bs=64k oflag=direct");
  const auto target =
      MakeThinTarget("/dev/" + Volume("wide"), ::testing::TempDir());
  ExpectReason(target->Inspect().status(), Reason::kNoSpace, "full");
  Shell("lvremove -y -qq -f " + Volume("small"));
}

TEST_F(ThinTargetTest, AnInactiveVolumeIsActivated) {
  Shell("lvchange -qq -an " + Volume("volume"));
  const auto facts = Make()->Inspect();
  ASSERT_TRUE(facts.ok()) << facts.status();
  EXPECT_EQ(Volumes("lv_name=volume", "lv_active"), "active");
}

TEST_F(ThinTargetTest, AGenerationIsReadOnlyAndSkipsActivation) {
  CommitOne(7, 1);
  EXPECT_EQ(Volumes("lv_name=volume.g7", "lv_attr").substr(1, 1), "r");
  EXPECT_EQ(Volumes("lv_name=volume.g7", "lv_skip_activation"),
            "skip activation");
}

TEST_F(ThinTargetTest, AForeignDiscardBreaksTheSeal) {
  const std::string seal = CommitOne(1, 1);
  ASSERT_TRUE(Make()->CheckSeal(seal).ok());
  Shell("blkdiscard -o 0 -l 65536 " + path());
  ExpectReason(Make()->CheckSeal(seal), Reason::kBaseMismatch, "64.0 KiB");
}

TEST_F(ThinTargetTest, AVolumeThatWasRolledBackBreaksTheSeal) {
  const std::string seal = CommitOne(1, 1);
  Shell("lvcreate -y -qq -s -kn -n mine " + Volume("volume"));
  Shell("lvconvert -y -qq --merge " + Volume("mine"));
  ExpectReason(Make()->CheckSeal(seal), Reason::kBaseMismatch, "thin id");
}

TEST_F(ThinTargetTest, ARemovedGenerationProvesNothing) {
  const std::string token = WriteStage(1, false);
  const auto seal = Make()->Commit(token, 1, Id128::Random(), "");
  ASSERT_TRUE(seal.ok()) << seal.status();
  Shell("lvremove -y -qq -f " + Volume("volume.g1"));
  ExpectReason(Make()->CheckSeal(*seal), Reason::kBaseMismatch, "volume.g1");
  // A commit that is asked for again still ends; its seal proves nothing.
  const auto again = Make()->Commit(token, 1, Id128::Random(), "");
  ASSERT_TRUE(again.ok()) << again.status();
  ExpectReason(Make()->CheckSeal(*again), Reason::kBaseMismatch);
}

TEST_F(ThinTargetTest, AGrownVolumeKeepsItsSeal) {
  const std::string seal = CommitOne(1, 1);
  Shell("lvextend -qq -L 8m " + Volume("volume"));
  const absl::Status proven = Make()->CheckSeal(seal);
  EXPECT_TRUE(proven.ok()) << proven;
  fixture_->WriteFromOutside(5 << 20, Pattern(512, 9));
  ExpectReason(Make()->CheckSeal(seal), Reason::kBaseMismatch);
}

TEST_F(ThinTargetTest, ACommitThatStoppedBeforeTheMergeIsFinished) {
  const std::string base = CommitOne(1, 1);
  const std::string token = WriteStage(2, true);
  Shell("lvcreate -y -qq -s -pr -ky --addtag snapsync -n volume.g2 " +
        Volume("volume.stage"));
  Shell("lvchange -y -qq -an " + Volume("volume") + " " +
        Volume("volume.stage"));
  const auto seal = Make()->Commit(token, 2, Id128::Random(), base);
  ASSERT_TRUE(seal.ok()) << seal.status();
  ExpectFirstBlock(2);
  EXPECT_TRUE(Make()->CheckSeal(*seal).ok());
  EXPECT_EQ(Volumes("lv_tags=snapsync"), "volume.g1 volume.g2");
}

TEST_F(ThinTargetTest, ACommitThatStoppedBeforeTheMergeCanBeAborted) {
  const std::string base = CommitOne(1, 1);
  const std::string token = WriteStage(2, true);
  Shell("lvcreate -y -qq -s -pr -ky --addtag snapsync -n volume.g2 " +
        Volume("volume.stage"));
  const absl::Status removed = Make()->RemoveStage(token);
  EXPECT_TRUE(removed.ok()) << removed;
  EXPECT_EQ(Volumes("lv_tags=snapsync"), "volume.g1");
  ExpectFirstBlock(1);
  EXPECT_TRUE(Make()->CheckSeal(base).ok());
}

TEST_F(ThinTargetTest, ACommitThatStoppedAfterTheMergeIsFinished) {
  CommitOne(1, 1);
  const std::string token = WriteStage(2, true);
  Shell("lvcreate -y -qq -s -pr -ky --addtag snapsync -n volume.g2 " +
        Volume("volume.stage"));
  Shell("lvchange -y -qq -an " + Volume("volume"));
  Shell("lvconvert -y -qq --merge " + Volume("volume.stage"));
  const auto seal = Make()->Commit(token, 2, Id128::Random(), "");
  ASSERT_TRUE(seal.ok()) << seal.status();
  ExpectFirstBlock(2);
  EXPECT_TRUE(Make()->CheckSeal(*seal).ok());
}

TEST_F(ThinTargetTest, AMergeThatLvmPutOffIsDoneWhenTheVolumeIsFree) {
  CommitOne(1, 1);
  const std::string token = WriteStage(2, true);
  Shell("lvcreate -y -qq -s -pr -ky --addtag snapsync -n volume.g2 " +
        Volume("volume.stage"));
  {
    const OtherProcess other(path());
    Shell("lvconvert -y -qq --merge " + Volume("volume.stage"));
    ExpectReason(Make()->Commit(token, 2, Id128::Random(), "").status(),
                 Reason::kBusy);
    ExpectReason(Make()->Inspect().status(), Reason::kBusy, "merged");
    ExpectReason(Make()->RemoveStage(token), Reason::kBusy, "merged");
    ExpectFirstBlock(1);
  }
  const auto seal = Make()->Commit(token, 2, Id128::Random(), "");
  ASSERT_TRUE(seal.ok()) << seal.status();
  ExpectFirstBlock(2);
  EXPECT_TRUE(Make()->CheckSeal(*seal).ok());
}

TEST_F(ThinTargetTest, VolumesOfOthersAreNeverRemoved) {
  Shell("lvcreate -y -qq -s -kn -n volume.stage " + Volume("volume"));
  Shell("lvcreate -y -qq -s -kn -n volume.g1 " + Volume("volume"));
  ExpectReason(Make()->CreateStage(fixture_->size(), false).status(),
               Reason::kTargetUnsuitable, "volume.stage");
  ExpectReason(Make()->RemoveStage(""), Reason::kTargetUnsuitable);
  EXPECT_TRUE(Make()->Prune(9, 1).ok());
  EXPECT_EQ(Volumes("origin=volume"), "volume.g1 volume.stage");
  // Nor is a generation's name taken from them.
  Shell("lvremove -y -qq -f " + Volume("volume.stage"));
  CommitOne(1, 1);
  EXPECT_THAT(Volumes("lv_name=~kept"), HasSubstr("volume.g1.kept-"));
}

TEST_F(ThinTargetTest, PruningRemovesWhatIsOlderThanTheNewestOnes) {
  for (const char* number : {"1", "2", "10", "11", "12"}) {
    Shell("lvcreate -y -qq -s -pr -ky --addtag snapsync -n volume.g" +
          std::string(number) + " " + Volume("volume"));
  }
  ASSERT_TRUE(Make()->Prune(11, 2).ok());
  EXPECT_EQ(Volumes("lv_tags=snapsync"), "volume.g10 volume.g11 volume.g12");
}

// It need not ask LVM again for what it has just seen, but does where it
// removed something since.
TEST_F(ThinTargetTest, PruningAgainAfterACommitFindsNothingToRemove) {
  CommitOne(1, 1);
  const std::string token = WriteStage(2, true);
  const auto target = Make();
  ASSERT_TRUE(target->Commit(token, 2, Id128::Random(), "").ok());
  EXPECT_TRUE(target->Prune(2, 1).ok());
  EXPECT_TRUE(target->Prune(2, 1).ok());
  EXPECT_EQ(Volumes("lv_tags=snapsync"), "volume.g2");
}

TEST_F(ThinTargetTest, PruningRemovesNoOtherVolumeThatHasTheName) {
  CommitOne(1, 1);
  const std::string token = WriteStage(2, true);
  const auto target = Make();
  ASSERT_TRUE(target->Commit(token, 2, Id128::Random(), "").ok());
  Shell("lvrename -qq " + Volume("volume.g1") + " " + Volume("renamed"));
  Shell("lvcreate -qq -s -kn -n volume.g1 --addtag other " + Volume("volume"));
  EXPECT_TRUE(target->Prune(2, 1).ok());
  EXPECT_EQ(Volumes("lv_tags=snapsync"), "renamed volume.g2");
  EXPECT_EQ(Volumes("lv_tags=other"), "volume.g1");
  Shell("lvremove -y -qq -f " + Volume("volume.g1"));
}

TEST_F(ThinTargetTest, ZeroesAndDiscardsDoNotFillThePool) {
  const std::string token = WriteStage(1, false);
  {
    const auto writer = Make()->OpenStage(token);
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)->Zero({0, fixture_->size()}).ok());
    ASSERT_TRUE((*writer)->Flush().ok());
  }
  ASSERT_TRUE(Make()->Commit(token, 1, Id128::Random(), "").ok());
  const auto facts = Make()->Inspect();
  ASSERT_TRUE(facts.ok()) << facts.status();
  EXPECT_TRUE(facts->blank);
}

TEST_F(ThinTargetTest, AThinDeviceThatNoVolumeNamesIsNotInTheWay) {
  // What a crash between the pool's commit and LVM's leaves: LVM takes the
  // next id, and the pool has it already.
  Shell("dmsetup message " + group_ + "-pool-tpool 0 \"create_thin $((1 + $(" +
        "lvs --noheadings -o thin_id -S segtype=thin " + group_ +
        " | sort -n | tail -n 1)))\"");
  const auto token = Make()->CreateStage(fixture_->size(), false);
  EXPECT_TRUE(token.ok()) << token.status();
}

// The other half: LVM has committed a volume whose thin device it has yet to
// make (a pending message), and the pool has made it already.
TEST_F(ThinTargetTest, AHalfMadeStageIsRemoved) {
  ASSERT_TRUE(Make()->CreateStage(fixture_->size(), false).ok());
  const std::string id = Volumes("lv_name=volume.stage", "thin_id");
  const std::string pool = group_ + "-pool-tpool";
  Shell("lvchange -y -qq -an " + Volume("volume.stage"));
  Shell("vgcfgbackup -qq -f /tmp/group.text " + group_);
  // The pool is one transaction behind LVM.
  Shell(R"(perl -0pi -e 's/(type = "thin-pool".*?transaction_id = )(\d+)(.*?)"
        R"(zero_new_blocks = 1\n)/$1.($2+1).$3."zero_new_blocks = 1\n)"
        R"(message1 {\ncreate = \"volume.stage\"\n}\n"/se or die' )"
        "/tmp/group.text");
  Shell("lvchange -y -qq -an " + group_);
  Shell("vgcfgrestore -qq --force -f /tmp/group.text " + group_);
  Shell("lvchange -y -qq -ay " + Volume("pool") + " || true");
  const absl::Status removed = Make()->RemoveStage("");
  EXPECT_TRUE(removed.ok()) << removed;
  const auto token = Make()->CreateStage(fixture_->size(), false);
  EXPECT_TRUE(token.ok()) << token.status();
  EXPECT_THAT(Volumes("lv_name=volume.stage", "thin_id"), Not(""));
}

}  // namespace
}  // namespace snapsync
