// SPDX-License-Identifier: Apache-2.0
//
// What agent/targets/target.h promises, of every kind of target. A crash is a
// new Target object that knows nothing but the path and the tokens.
#include "agent/targets/target.h"

#include <algorithm>
#include <optional>

#include "common/base/aligned_buffer.h"
#include "common/base/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/contract/target_fixture.h"

namespace snapsync {
namespace {

using ::testing::HasSubstr;
using ::testing::Le;

constexpr uint64_t kBlock = 64 << 10;

class TargetContract : public ::testing::TestWithParam<FixtureKind> {
 protected:
  void SetUp() override {
    std::string why;
    fixture_ = GetParam().make(why);
    if (fixture_ == nullptr) GTEST_SKIP() << why;
  }

  std::unique_ptr<Target> Make() { return fixture_->Make(); }
  std::string path() const { return fixture_->path(); }
  uint64_t size() const { return fixture_->size(); }
  Bytes Contents() const { return fixture_->Contents(); }
  bool in_place() { return Make()->in_place(); }

  static void Put(Bytes& bytes, uint64_t offset, const Bytes& part) {
    std::copy(part.begin(), part.end(),
              bytes.begin() + static_cast<ptrdiff_t>(offset));
  }
  static void WriteTo(BlockWriter& writer, uint64_t offset,
                      const Bytes& bytes) {
    AlignedBuffer buffer(bytes.size());
    std::copy(bytes.begin(), bytes.end(), buffer.data());
    const WriteOperation write{offset, buffer.span()};
    const absl::Status status = writer.Write({&write, 1});
    ASSERT_TRUE(status.ok()) << status;
  }

  // Writes through the stage, flushes, and closes it.
  void Write(const std::string& token, uint64_t offset, const Bytes& bytes) {
    auto writer = Make()->OpenStage(token);
    ASSERT_TRUE(writer.ok()) << writer.status();
    WriteTo(**writer, offset, bytes);
    const absl::Status flushed = (*writer)->Flush();
    ASSERT_TRUE(flushed.ok()) << flushed;
  }

  std::string CreateStage(bool from_base) {
    auto token = Make()->CreateStage(size(), from_base);
    EXPECT_TRUE(token.ok()) << token.status();
    EXPECT_THAT(token->size(), Le(400U));
    EXPECT_TRUE(std::all_of(token->begin(), token->end(),
                            [](char c) { return c >= ' ' && c <= '~'; }));
    return token.value_or("");
  }

  // The first generation: all of `bytes`. Its seal.
  std::string CommitWhole(const Bytes& bytes, uint64_t number = 1) {
    const std::string token = CreateStage(false);
    Write(token, 0, bytes);
    const auto seal = Make()->Commit(token, number, Id128::Random(), "");
    EXPECT_TRUE(seal.ok()) << seal.status();
    return seal.value_or("");
  }

  void ExpectReason(const absl::Status& status, Reason reason) {
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(ReasonOf(status), reason) << status;
  }

  std::unique_ptr<TargetFixture> fixture_;
};

TEST_P(TargetContract, ATargetOpenElsewhereIsBusyAndNamesTheHolder) {
  const Bytes bytes = Pattern(size(), 1);
  CommitWhole(bytes);
  const OtherProcess other(path());
  const auto facts = Make()->Inspect();
  ExpectReason(facts.status(), Reason::kBusy);
  EXPECT_THAT(std::string(MessageOf(facts.status())),
              HasSubstr("open in process"));
  EXPECT_EQ(Contents(), bytes);
}

TEST_P(TargetContract, TheReaderGivesTheContentsUnlessItIsOpenElsewhere) {
  const Bytes bytes = Pattern(size(), 1);
  const std::string seal = CommitWhole(bytes);
  {
    const auto reader = Make()->OpenReader();
    ASSERT_TRUE(reader.ok()) << reader.status();
    ASSERT_EQ((*reader)->size(), size());
    AlignedBuffer buffer(size());
    const ReadOperation read{0, buffer.span()};
    const absl::Status status = (*reader)->Read({&read, 1});
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(Bytes(buffer.data(), buffer.data() + buffer.size()), bytes);
  }
  const absl::Status sealed = Make()->CheckSeal(seal);
  EXPECT_TRUE(sealed.ok()) << sealed;
  const OtherProcess other(path());
  ExpectReason(Make()->OpenReader().status(), Reason::kBusy);
}

TEST_P(TargetContract, ASourceThatIsTooLargeIsRefused) {
  const auto facts = Make()->Inspect();
  ASSERT_TRUE(facts.ok()) << facts.status();
  if (facts->grows) GTEST_SKIP() << "takes any size";
  ExpectReason(Make()->CreateStage(size() + 512, false).status(),
               Reason::kTargetUnsuitable);
}

TEST_P(TargetContract, AForeignWriteBreaksTheSeal) {
  const Bytes bytes = Pattern(size(), 1);
  const std::string seal = CommitWhole(bytes);
  // Where the sample of a plain device looks: at the start.
  fixture_->WriteFromOutside(512, Pattern(512, 2));
  const Bytes written = Contents();
  ASSERT_NE(written, bytes);
  ExpectReason(Make()->CheckSeal(seal), Reason::kBaseMismatch);
  EXPECT_EQ(Contents(), written);
}

TEST_P(TargetContract, AForeignWriteWhileTheStageIsFilledStopsTheCommit) {
  if (in_place()) GTEST_SKIP() << "has no other place";
  const std::string seal = CommitWhole(Pattern(size(), 1));
  const std::string token = CreateStage(true);
  Write(token, kBlock, Pattern(kBlock, 2));
  fixture_->WriteFromOutside(3 * kBlock, Pattern(512, 3));
  const Bytes written = Contents();
  ExpectReason(Make()->Commit(token, 2, Id128::Random(), seal).status(),
               Reason::kBaseMismatch);
  EXPECT_EQ(Contents(), written);
  const absl::Status removed = Make()->RemoveStage(token);
  EXPECT_TRUE(removed.ok()) << removed;
  EXPECT_EQ(Contents(), written);
}

TEST_P(TargetContract, SomebodyWhoOpensTheTargetPutsTheCommitOff) {
  if (in_place()) GTEST_SKIP() << "is open itself until then";
  const Bytes bytes = Pattern(size(), 1);
  const std::string seal = CommitWhole(bytes);
  const std::string token = CreateStage(true);
  Write(token, kBlock, Pattern(kBlock, 2));
  {
    const OtherProcess other(path());
    ExpectReason(Make()->Commit(token, 2, Id128::Random(), seal).status(),
                 Reason::kBusy);
    EXPECT_EQ(Contents(), bytes);
  }
  EXPECT_TRUE(Make()->CheckSeal(seal).ok());
  const auto committed = Make()->Commit(token, 2, Id128::Random(), seal);
  ASSERT_TRUE(committed.ok()) << committed.status();
  EXPECT_NE(Contents(), bytes);
}

TEST_P(TargetContract, AnotherTargetDoesNotPassForThisOne) {
  const std::string seal = CommitWhole(Pattern(size(), 1));
  const std::string token = CreateStage(true);
  const auto other = fixture_->MakeOther();
  ExpectReason(other->CheckSeal(seal), Reason::kBaseMismatch);
  ExpectReason(other->OpenStage(token).status(), Reason::kBaseMismatch);
  ExpectReason(other->Commit(token, 2, Id128::Random(), "").status(),
               Reason::kBaseMismatch);
}

TEST_P(TargetContract, GarbageAsSealOrTokenProvesNothing) {
  const Bytes bytes = Pattern(size(), 1);
  CommitWhole(bytes);
  for (const char* text :
       {"", "x", "thin-seal", "file-seal", "block-seal", "thin-stage",
        "file-stage", "block-stage", "qcow2-seal", "qcow2-stage"}) {
    ExpectReason(Make()->CheckSeal(text), Reason::kBaseMismatch);
    ExpectReason(Make()->OpenStage(text).status(), Reason::kBaseMismatch);
    ExpectReason(Make()->Commit(text, 2, Id128::Random(), "").status(),
                 Reason::kBaseMismatch);
  }
  EXPECT_EQ(Contents(), bytes);
}

TEST_P(TargetContract, ANewTargetIsBlankAndACommittedOneIsNot) {
  const auto before = Make()->Inspect();
  ASSERT_TRUE(before.ok()) << before.status();
  EXPECT_TRUE(before->blank);
  CommitWhole(Pattern(size(), 1));
  const auto after = Make()->Inspect();
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_FALSE(after->blank);
  EXPECT_EQ(after->identity, before->identity);
  EXPECT_EQ(after->size, size());
}

TEST_P(TargetContract, TwoTargetsHaveTwoIdentities) {
  const auto one = Make()->Inspect();
  const auto two = fixture_->MakeOther()->Inspect();
  ASSERT_TRUE(one.ok() && two.ok());
  EXPECT_NE(one->identity, two->identity);
}

TEST_P(TargetContract, WhatWasWrittenIsWhatIsCommitted) {
  const Bytes bytes = Pattern(size(), 1);
  const std::string seal = CommitWhole(bytes);
  EXPECT_EQ(Contents(), bytes);
  EXPECT_THAT(seal.size(), Le(400U));
  const absl::Status proven = Make()->CheckSeal(seal);
  EXPECT_TRUE(proven.ok()) << proven;
}

TEST_P(TargetContract, AStageFromTheBaseHasItsContents) {
  Bytes bytes = Pattern(size(), 1);
  const std::string seal = CommitWhole(bytes);
  const std::string token = CreateStage(true);
  const Bytes change = Pattern(kBlock, 2);
  Write(token, 5 * kBlock, change);
  if (!in_place()) {
    EXPECT_EQ(Contents(), bytes) << "before the commit";
  }
  const auto committed = Make()->Commit(token, 2, Id128::Random(), seal);
  ASSERT_TRUE(committed.ok()) << committed.status();
  std::copy(change.begin(), change.end(), bytes.begin() + 5 * kBlock);
  EXPECT_EQ(Contents(), bytes);
  EXPECT_TRUE(Make()->CheckSeal(*committed).ok());
  ExpectReason(Make()->CheckSeal(seal), Reason::kBaseMismatch);
}

TEST_P(TargetContract, ZeroedExtentsReadAsZeroes) {
  Bytes bytes = Pattern(size(), 1);
  CommitWhole(bytes);
  const std::string token = CreateStage(true);
  const Extent zeroed{kBlock / 2, 3 * kBlock};
  {
    auto writer = Make()->OpenStage(token);
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)->Zero(zeroed).ok());
    ASSERT_TRUE((*writer)->Flush().ok());
  }
  ASSERT_TRUE(Make()->Commit(token, 2, Id128::Random(), "").ok());
  std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(zeroed.offset),
              zeroed.length, std::byte{0});
  EXPECT_EQ(Contents(), bytes);
}

TEST_P(TargetContract, AWriterThatIsOpenIsNotInItsOwnWay) {
  const std::string token = CreateStage(false);
  const auto writer = Make()->OpenStage(token);
  ASSERT_TRUE(writer.ok()) << writer.status();
  const auto facts = Make()->Inspect();
  EXPECT_TRUE(facts.ok()) << facts.status();
}

TEST_P(TargetContract, AWriterOverTheBaseIsNotInItsOwnWay) {
  const Bytes bytes = Pattern(size(), 1);
  const std::string seal = CommitWhole(bytes);
  const std::string token = CreateStage(true);
  const auto writer = Make()->OpenStage(token);
  ASSERT_TRUE(writer.ok()) << writer.status();
  const auto facts = Make()->Inspect();
  ASSERT_TRUE(facts.ok()) << facts.status();
  EXPECT_EQ(facts->size, size());
  EXPECT_TRUE(Make()->CheckSeal(seal).ok());
  EXPECT_EQ(Contents(), bytes);
}

// What came after the flush may be there or not; it comes again.
TEST_P(TargetContract, WhatWasFlushedIsThereAfterACrash) {
  Bytes bytes = Pattern(size(), 1);
  CommitWhole(bytes);
  const std::string token = CreateStage(true);
  const Bytes data = Pattern(3 * kBlock, 2);
  {
    const auto writer = Make()->OpenStage(token);
    ASSERT_TRUE(writer.ok()) << writer.status();
    WriteTo(**writer, kBlock, data);
    ASSERT_TRUE((*writer)->Zero({8 * kBlock, 2 * kBlock}).ok());
    ASSERT_TRUE((*writer)->Flush().ok());
    WriteTo(**writer, 20 * kBlock + 512, data);
    ASSERT_TRUE((*writer)->Zero({30 * kBlock, 1024}).ok());
  }
  {
    const auto writer = Make()->OpenStage(token);
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)->Zero({30 * kBlock, 1024}).ok());
    WriteTo(**writer, 20 * kBlock + 512, data);
    ASSERT_TRUE((*writer)->Flush().ok());
  }
  ASSERT_TRUE(Make()->Commit(token, 2, Id128::Random(), "").ok());
  Put(bytes, kBlock, data);
  Put(bytes, 20 * kBlock + 512, data);
  Put(bytes, 8 * kBlock, Bytes(2 * kBlock));
  Put(bytes, 30 * kBlock, Bytes(1024));
  EXPECT_EQ(Contents(), bytes);
}

TEST_P(TargetContract, TheLastWriteOfARangeCounts) {
  Bytes bytes = Pattern(size(), 1);
  CommitWhole(bytes);
  const std::string token = CreateStage(true);
  {
    const auto writer = Make()->OpenStage(token);
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (uint32_t i = 2; i < 8; ++i) {
      const Bytes data = Pattern(kBlock + 512 * i, i);
      const uint64_t offset = (i % 3) * kBlock / 2;
      WriteTo(**writer, offset, data);
      Put(bytes, offset, data);
      if (i == 5) {
        ASSERT_TRUE((*writer)->Zero({kBlock / 4, kBlock}).ok());
        Put(bytes, kBlock / 4, Bytes(kBlock));
      }
    }
    ASSERT_TRUE((*writer)->Flush().ok());
  }
  ASSERT_TRUE(Make()->Commit(token, 2, Id128::Random(), "").ok());
  EXPECT_EQ(Contents(), bytes);
}

TEST_P(TargetContract, AGrownSourceReadsAsZeroesWhereNothingWasWritten) {
  const auto facts = Make()->Inspect();
  ASSERT_TRUE(facts.ok()) << facts.status();
  if (!facts->grows) GTEST_SKIP() << "keeps its size";
  Bytes bytes = Pattern(size() - 1536, 1);
  uint64_t number = 1;
  std::string token;
  for (const uint64_t new_size :
       {bytes.size(), size() + 5 * kBlock + 512, size() / 2 + 512, size()}) {
    const auto created = Make()->CreateStage(new_size, number > 1);
    ASSERT_TRUE(created.ok()) << created.status();
    const Bytes data = Pattern(number == 1 ? new_size : kBlock, 2);
    Write(*created, 0, data);
    bytes.resize(new_size);
    Put(bytes, 0, data);
    const auto seal = Make()->Commit(*created, number++, Id128::Random(), "");
    ASSERT_TRUE(seal.ok()) << seal.status();
    EXPECT_EQ(Contents(), bytes) << new_size;
  }
}

TEST_P(TargetContract, WritingGoesOnAfterACrash) {
  Bytes bytes = Pattern(size(), 1);
  CommitWhole(bytes);
  const std::string token = CreateStage(true);
  Write(token, 0, Pattern(kBlock, 2));
  Write(token, kBlock, Pattern(kBlock, 3));  // each opens it anew
  ASSERT_TRUE(Make()->Commit(token, 2, Id128::Random(), "").ok());
  const Bytes first = Pattern(kBlock, 2);
  const Bytes second = Pattern(kBlock, 3);
  std::copy(first.begin(), first.end(), bytes.begin());
  std::copy(second.begin(), second.end(), bytes.begin() + kBlock);
  EXPECT_EQ(Contents(), bytes);
}

TEST_P(TargetContract, CommittingAgainEndsInTheSameState) {
  const std::string first = CommitWhole(Pattern(size(), 1));
  const std::string token = CreateStage(true);
  Write(token, kBlock, Pattern(kBlock, 2));
  const Id128 generation = Id128::Random();
  const auto once = Make()->Commit(token, 2, generation, first);
  ASSERT_TRUE(once.ok()) << once.status();
  const Bytes bytes = Contents();
  const auto twice = Make()->Commit(token, 2, generation, first);
  ASSERT_TRUE(twice.ok()) << twice.status();
  EXPECT_EQ(*twice, *once);
  EXPECT_EQ(Contents(), bytes);
  // Nor does an abort that comes too late undo it.
  EXPECT_TRUE(Make()->RemoveStage(token).ok());
  EXPECT_EQ(Contents(), bytes);
  EXPECT_TRUE(Make()->CheckSeal(*twice).ok());
}

TEST_P(TargetContract, ARemovedStageLeavesTheTargetAsItWas) {
  if (in_place()) GTEST_SKIP() << "has no other place";
  const Bytes bytes = Pattern(size(), 1);
  const std::string seal = CommitWhole(bytes);
  const std::string token = CreateStage(true);
  Write(token, 0, Pattern(kBlock, 2));
  for (int i = 0; i < 2; ++i) {
    const absl::Status removed = Make()->RemoveStage(token);
    EXPECT_TRUE(removed.ok()) << removed;
  }
  EXPECT_EQ(Contents(), bytes);
  EXPECT_TRUE(Make()->CheckSeal(seal).ok());
  ExpectReason(Make()->OpenStage(token).status(), Reason::kBaseMismatch);
  ExpectReason(Make()->Commit(token, 2, Id128::Random(), seal).status(),
               Reason::kBaseMismatch);
  EXPECT_EQ(Contents(), bytes);
}

TEST_P(TargetContract, AStageWhoseTokenWasLostIsRemovedByName) {
  if (in_place()) GTEST_SKIP() << "has no other place";
  const std::string lost = CreateStage(false);
  const absl::Status removed = Make()->RemoveStage("");
  EXPECT_TRUE(removed.ok()) << removed;
  ExpectReason(Make()->OpenStage(lost).status(), Reason::kBaseMismatch);
}

TEST_P(TargetContract, ANewStageReplacesALostOne) {
  if (in_place()) GTEST_SKIP() << "has no other place";
  const std::string lost = CreateStage(false);
  const std::string token = CreateStage(false);
  ExpectReason(Make()->OpenStage(lost).status(), Reason::kBaseMismatch);
  // A late removal of the lost one must not take the new one.
  EXPECT_TRUE(Make()->RemoveStage(lost).ok());
  EXPECT_TRUE(Make()->OpenStage(token).ok());
}

TEST_P(TargetContract, PruningKeepsTheContentsAndTheNewestSeal) {
  std::string seal;
  for (uint64_t number = 1; number <= 3; ++number) {
    seal = CommitWhole(Pattern(size(), static_cast<uint32_t>(number)), number);
    const absl::Status pruned = Make()->Prune(number, 1);
    EXPECT_TRUE(pruned.ok()) << pruned;
  }
  EXPECT_TRUE(Make()->Prune(3, 0).ok());
  EXPECT_EQ(Contents(), Pattern(size(), 3));
  EXPECT_TRUE(Make()->CheckSeal(seal).ok());
}

std::vector<FixtureKind> AllKinds() {
  Qcow2Options plain;
  Qcow2Options chain;
  chain.chain = true;
  Qcow2Options zstd;
  zstd.compression = Qcow2Options::Compression::kZstd;
  Qcow2Options large;
  large.cluster_size = 2 << 20;
  large.compression = Qcow2Options::Compression::kZlib;
  return {FileKind(),
          BlockKind(),
          ThinKind(),
          Qcow2Kind("Qcow2", plain),
          Qcow2Kind("Qcow2Chain", chain),
          Qcow2Kind("Qcow2Zstd", zstd),
          Qcow2Kind("Qcow2Large", large)};
}

INSTANTIATE_TEST_SUITE_P(Targets, TargetContract,
                         ::testing::ValuesIn(AllKinds()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace snapsync
