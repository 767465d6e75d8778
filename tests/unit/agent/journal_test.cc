// SPDX-License-Identifier: Apache-2.0
#include "agent/journal.h"

#include <cstring>

#include "common/base/crc32c.h"
#include "common/base/endian.h"
#include "gtest/gtest.h"
#include "tests/testing/memory_device.h"
#include "tests/testing/random.h"
#include "tests/testing/status_matchers.h"

namespace snapsync {
namespace {

constexpr size_t kRecordBytes = 76;

class JournalTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Journal>> Open(const Id128& session) {
    return Journal::Open(std::make_unique<MemoryReader>(device_),
                         std::make_unique<MemoryWriter>(device_), session);
  }
  std::unique_ptr<Journal> MustOpen(const Id128& session) {
    auto journal = Open(session);
    EXPECT_THAT(journal, IsOk());
    return *std::move(journal);
  }
  uint64_t WatermarkOf(const Id128& session) {
    return MustOpen(session)->last().watermark;
  }
  static JournalRecord Record(uint64_t watermark) {
    JournalRecord record;
    record.watermark = watermark;
    record.digest[0] = static_cast<std::byte>(watermark);
    return record;
  }
  // Where the record with this sequence number is.
  std::byte* Slot(uint64_t sequence) {
    return device_->bytes.data() +
           sequence % Journal::kSlots * Journal::kSlotBytes;
  }

  Random random_{1};
  const Id128 session_ = random_.Id();
  const Id128 other_ = random_.Id();
  std::shared_ptr<MemoryDevice> device_ =
      std::make_shared<MemoryDevice>(Journal::kBytes);
};

TEST_F(JournalTest, AFileThatIsTooSmallIsRefused) {
  device_ = std::make_shared<MemoryDevice>(Journal::kBytes - 512);
  EXPECT_THAT(Open(session_),
              FailsWith(Reason::kIo, "memory: the journal has 1048064 bytes"));
}

TEST_F(JournalTest, AFailedReadIsPassedOn) {
  device_->before = [](std::string_view) {
    return Error(Reason::kIo, "broken");
  };
  EXPECT_THAT(Open(session_), FailsWith(Reason::kIo, "broken"));
}

TEST_F(JournalTest, ARecordOfAnotherVersionIsRefusedNotIgnored) {
  ASSERT_THAT(MustOpen(session_)->Append(Record(5)), IsOk());
  std::byte* slot = Slot(1);
  StoreLittle(slot + 4, uint32_t{2});
  StoreLittle(slot + 72, Crc32c({slot, 72}));
  EXPECT_THAT(Open(session_),
              FailsWith(Reason::kIo, "journal version 2, this agent knows 1"));
}

TEST_F(JournalTest, AnEmptyJournalIsAtZeroAndIsNotWrittenTo) {
  EXPECT_EQ(WatermarkOf(session_), 0U);
  EXPECT_EQ(device_->Count("write"), 0U);
}

TEST_F(JournalTest, TheNewestRecordCounts) {
  const auto journal = MustOpen(session_);
  for (uint64_t watermark = 1; watermark <= 5; ++watermark) {
    ASSERT_THAT(journal->Append(Record(watermark)), IsOk());
    EXPECT_EQ(journal->last(), Record(watermark));
  }
  EXPECT_EQ(MustOpen(session_)->last(), Record(5));
}

TEST_F(JournalTest, ARecordIsWrittenThenFlushed) {
  const auto journal = MustOpen(session_);
  device_->operations.clear();
  ASSERT_THAT(journal->Append(Record(1)), IsOk());
  EXPECT_THAT(device_->operations, testing::ElementsAre("write", "flush"));
}

// What is found may have come out of a cache.
TEST_F(JournalTest, WhatIsFoundIsWrittenAgainBeforeItCounts) {
  ASSERT_THAT(MustOpen(session_)->Append(Record(5)), IsOk());
  device_->operations.clear();
  EXPECT_EQ(WatermarkOf(session_), 5U);
  EXPECT_THAT(device_->operations,
              testing::ElementsAre("read", "write", "flush"));
  device_->before = [](std::string_view operation) {
    return operation == "flush" ? Error(Reason::kIo, "broken")
                                : absl::OkStatus();
  };
  EXPECT_THAT(Open(session_), FailsWith(Reason::kIo, "broken"));
}

TEST_F(JournalTest, AFailedWriteOrFlushMovesNothing) {
  for (const std::string_view failing : {"write", "flush"}) {
    const auto journal = MustOpen(session_);
    device_->before = [failing](std::string_view operation) {
      return operation == failing ? Error(Reason::kIo, "broken")
                                  : absl::OkStatus();
    };
    EXPECT_THAT(journal->Append(Record(9)), FailsWith(Reason::kIo, "broken"));
    EXPECT_EQ(journal->last().watermark, 0U);
    device_->before = nullptr;
  }
}

TEST_F(JournalTest, WhenTheNewestRecordIsDamagedTheOneBeforeCounts) {
  const auto journal = MustOpen(session_);
  for (uint64_t watermark = 1; watermark <= 5; ++watermark) {
    ASSERT_THAT(journal->Append(Record(watermark)), IsOk());
  }
  const std::vector<std::byte> good = device_->bytes;
  for (size_t i = 0; i < kRecordBytes; ++i) {
    device_->bytes = good;
    Slot(5)[i] ^= std::byte{0x10};
    EXPECT_EQ(WatermarkOf(session_), 4U) << "byte " << i;
  }
}

TEST_F(JournalTest, ARecordTornAnywhereLeavesTheOneBefore) {
  auto journal = MustOpen(session_);
  // A round further, so that each slot holds an older record.
  for (uint64_t watermark = 1; watermark <= Journal::kSlots + 5; ++watermark) {
    ASSERT_THAT(journal->Append(Record(watermark)), IsOk());
  }
  const std::vector<std::byte> before = device_->bytes;
  ASSERT_THAT(journal->Append(Record(1000)), IsOk());
  const std::vector<std::byte> after = device_->bytes;
  const auto at =
      static_cast<size_t>(Slot(Journal::kSlots + 6) - device_->bytes.data());
  for (size_t torn = 0; torn <= kRecordBytes; ++torn) {
    device_->bytes = before;
    std::memcpy(device_->bytes.data() + at, after.data() + at, torn);
    const uint64_t watermark = WatermarkOf(session_);
    EXPECT_TRUE(watermark == 1000 || watermark == Journal::kSlots + 5)
        << torn << " bytes: " << watermark;
    // It can be gone on with.
    ASSERT_THAT(MustOpen(session_)->Append(Record(2000)), IsOk());
    EXPECT_EQ(WatermarkOf(session_), 2000U);
  }
}

TEST_F(JournalTest, RecordsOfOtherSessionsCountForNothing) {
  ASSERT_THAT(MustOpen(other_)->Append(Record(7)), IsOk());
  EXPECT_EQ(WatermarkOf(session_), 0U);
  ASSERT_THAT(MustOpen(session_)->Append(Record(3)), IsOk());
  EXPECT_EQ(WatermarkOf(session_), 3U);
  EXPECT_EQ(WatermarkOf(other_), 7U);
}

TEST_F(JournalTest, ANewSessionWritesBehindTheOldOnesRecords) {
  const auto old = MustOpen(other_);
  for (uint64_t i = 1; i <= 300; ++i) {
    ASSERT_THAT(old->Append(Record(i)), IsOk());
  }
  const auto journal = MustOpen(session_);
  for (uint64_t i = 1; i <= Journal::kSlots - 2; ++i) {
    ASSERT_THAT(journal->Append(Record(i)), IsOk());
    ASSERT_EQ(WatermarkOf(session_), i);
    if (i >= Journal::kSlots / 2 - 2) break;
  }
  // The old one's newest record is the last to be overwritten.
  EXPECT_EQ(WatermarkOf(other_), 300U);
}

TEST_F(JournalTest, TheRingGoesRoundAsOftenAsItTakes) {
  const auto journal = MustOpen(session_);
  for (uint64_t i = 1; i <= 3 * Journal::kSlots + 17; ++i) {
    ASSERT_THAT(journal->Append(Record(i)), IsOk());
    if (i % 101 == 0 || i % Journal::kSlots <= 1) {
      // By a copy: opening writes.
      const auto copy = std::make_shared<MemoryDevice>(Journal::kBytes);
      copy->bytes = device_->bytes;
      const auto reopened =
          Journal::Open(std::make_unique<MemoryReader>(copy),
                        std::make_unique<MemoryWriter>(copy), session_);
      ASSERT_THAT(reopened, IsOk());
      ASSERT_EQ((*reopened)->last(), Record(i));
    }
  }
}

TEST_F(JournalTest, RandomBytesNeverCrashAndPromiseNothing) {
  for (int round = 0; round < 50; ++round) {
    random_.Fill(device_->bytes);
    for (uint64_t slot = 0; slot < Journal::kSlots; ++slot) {
      std::byte* at = device_->bytes.data() + slot * Journal::kSlotBytes;
      StoreLittle(at, uint32_t{0x4A504E53});
      if (random_.Percent(50)) StoreLittle(at + 4, uint32_t{1});
    }
    EXPECT_EQ(WatermarkOf(session_), 0U);
    // With checksums that are right: other sessions, or other versions.
    for (uint64_t slot = 0; slot < Journal::kSlots; ++slot) {
      std::byte* at = device_->bytes.data() + slot * Journal::kSlotBytes;
      StoreLittle(at + 72, Crc32c({at, 72}));
    }
    const auto journal = Open(session_);
    if (journal.ok()) {
      EXPECT_EQ((*journal)->last().watermark, 0U);
    } else {
      EXPECT_EQ(ReasonOf(journal.status()), Reason::kIo);
    }
  }
}

}  // namespace
}  // namespace snapsync
