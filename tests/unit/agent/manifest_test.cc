// SPDX-License-Identifier: Apache-2.0
#include "agent/manifest.h"

#include <gtest/gtest.h>

#include <fstream>

#include "agent/manifest_log.h"
#include "tests/testing/random.h"
#include "tests/testing/recording_folder.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync {
namespace {

constexpr char kName[] = "vol.manifest";
constexpr char kLog[] = "vol.manifest-log";
constexpr uint64_t kSize = 200 * kCellBytes + 12288;
constexpr uint64_t kCells = 201;

using Cells = std::vector<CellHash>;

class ManifestTest : public testing::Test {
 protected:
  static std::unique_ptr<HostFolder> Open(const std::string& path) {
    auto folder = OpenHostFolder(path);
    EXPECT_THAT(folder, IsOk());
    return *std::move(folder);
  }
  // Empty: there is none, or it is damaged.
  static Cells CellsIn(HostFolder& folder, Id128* generation = nullptr) {
    auto manifest = Manifest::Open(folder, kName);
    if (!manifest.ok() || *manifest == nullptr) return {};
    if (generation != nullptr) *generation = (*manifest)->head().generation;
    Cells cells(CellsOf((*manifest)->head().size));
    EXPECT_THAT((*manifest)->Read(0, cells), IsOk());
    EXPECT_EQ((*manifest)->damaged_sectors(), 0U);
    return cells;
  }
  static bool Update(HostFolder& folder, const SessionRecord& session) {
    const auto updated = UpdateManifest(folder, kName, kLog, session);
    EXPECT_THAT(updated, IsOk());
    return updated.value_or(false);
  }
  std::vector<std::byte> Data(uint64_t bytes) {
    std::vector<std::byte> data(bytes);
    random_.Fill(data);
    return data;
  }

  // A session whose chunks write `cells` (zeroes for an empty one).
  SessionRecord Log(HostFolder& folder, const Id128& base,
                    const std::vector<std::pair<uint64_t, bool>>& cells,
                    Cells& expected) {
    SessionRecord session;
    session.id = random_.Id();
    session.base = base;
    session.generation = random_.Id();
    session.source_size = kSize;
    session.chunk_count = cells.size();
    expected.resize(kCells, kUnknownCell);
    const auto log = ManifestLog::Open(folder, kLog, session.id, 0);
    EXPECT_THAT(log, IsOk());
    uint64_t chunk = 0;
    for (const auto& [cell, zero] : cells) {
      CellChanges changes(kSize);
      const uint64_t bytes = std::min(kCellBytes, kSize - cell * kCellBytes);
      if (zero) {
        changes.AddZeroes({cell * kCellBytes, bytes});
        expected[cell] = kZeroCell;
      } else {
        const std::vector<std::byte> data = Data(bytes);
        changes.AddData(cell * kCellBytes, data);
        expected[cell] = HashOfCell(data);
      }
      EXPECT_THAT((*log)->Append(chunk, chunk + 1, changes), IsOk());
      ++chunk;
    }
    EXPECT_THAT((*log)->Flush(), IsOk());
    return session;
  }

  Random random_{7};
  TemporaryFolder folder_;
};

TEST_F(ManifestTest, AHashTellsZeroesFromDataAndNothingIsUnknown) {
  std::vector<std::byte> data(kCellBytes);
  EXPECT_EQ(HashOfCell(data), kZeroCell);
  data.back() = std::byte{1};
  const CellHash one = HashOfCell(data);
  EXPECT_GT(one, kUnknownCell);
  data.back() = std::byte{2};
  EXPECT_NE(HashOfCell(data), one);
}

TEST_F(ManifestTest, WhatIsWrittenIsRead) {
  const auto folder = Open(folder_.path());
  const Manifest::Head head{random_.Id(), kSize};
  const auto made = Manifest::Create(*folder, kName, head, kUnknownCell);
  ASSERT_THAT(made, IsOk());
  Cells expected(kCells, kUnknownCell);
  EXPECT_EQ(CellsIn(*folder), expected);
  for (const auto& [first, count] :
       {std::pair<size_t, size_t>(0, 1), {62, 3}, {120, 81}}) {
    Cells cells(count);
    for (CellHash& cell : cells) cell = random_.Next();
    std::copy(cells.begin(), cells.end(),
              expected.begin() + static_cast<ptrdiff_t>(first));
    ASSERT_THAT((*made)->Write(first, cells), IsOk());
  }
  ASSERT_THAT((*made)->Fill(126, 63, kZeroCell), IsOk());
  std::fill_n(expected.begin() + 126, 63, kZeroCell);
  ASSERT_THAT((*made)->Flush(), IsOk());
  Id128 generation;
  EXPECT_EQ(CellsIn(*folder, &generation), expected);
  EXPECT_EQ(generation, head.generation);
  EXPECT_THAT((*made)->Fill(kCells, 1, kZeroCell), FailsWith(Reason::kIo, ""));
}

TEST_F(ManifestTest, EachFlippedBitIsFound) {
  const auto folder = Open(folder_.path());
  const Manifest::Head head{random_.Id(), kSize};
  Cells expected(kCells);
  for (CellHash& cell : expected) cell = random_.Next() | 2;
  std::fill_n(expected.begin(), 63, kZeroCell);
  {
    const auto made = Manifest::Create(*folder, kName, head, kZeroCell);
    ASSERT_THAT(made, IsOk());
    ASSERT_THAT((*made)->Write(0, expected), IsOk());
  }
  const std::string good = ContentsOf(folder_ / kName);
  for (size_t at = 0; at < good.size(); ++at) {
    if (at == 36) at = 4096;  // what is between counts for nothing
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ (1 << (at % 8)));
    WriteContents(folder_ / kName, bad);
    const auto manifest = Manifest::Open(*folder, kName);
    if (at < 4096) {
      EXPECT_THAT(manifest, FailsWith(Reason::kVerification, kName)) << at;
      continue;
    }
    ASSERT_THAT(manifest, IsOk());
    Cells cells(kCells);
    ASSERT_THAT((*manifest)->Read(0, cells), IsOk());
    EXPECT_EQ((*manifest)->damaged_sectors(), 1U) << at;
    for (uint64_t i = 0; i < kCells; ++i) {
      if (cells[i] != kUnknownCell) {
        ASSERT_EQ(cells[i], expected[i]);
      }
    }
  }
}

TEST_F(ManifestTest, WhatIsAddedIsUnknown) {
  const auto folder = Open(folder_.path());
  const Manifest::Head head{random_.Id(), kSize};
  const auto made = Manifest::Create(*folder, kName, head, kZeroCell);
  ASSERT_THAT(made, IsOk());
  ASSERT_THAT((*made)->SetHead({random_.Id(), 300 * kCellBytes}), IsOk());
  Cells expected(300, kUnknownCell);
  std::fill_n(expected.begin(), 200, kZeroCell);
  EXPECT_EQ(CellsIn(*folder), expected);
  ASSERT_THAT((*made)->SetHead({random_.Id(), 100 * kCellBytes}), IsOk());
  ASSERT_THAT((*made)->SetHead({random_.Id(), 300 * kCellBytes}), IsOk());
  std::fill(expected.begin() + 100, expected.end(), kUnknownCell);
  EXPECT_EQ(CellsIn(*folder), expected);
}

TEST_F(ManifestTest, APieceInsideACellLeavesItUnknown) {
  const auto folder = Open(folder_.path());
  SessionRecord session;
  session.id = random_.Id();
  session.generation = random_.Id();
  session.source_size = kSize;
  session.chunk_count = 1;
  const auto log = ManifestLog::Open(*folder, kLog, session.id, 0);
  ASSERT_THAT(log, IsOk());
  CellChanges changes(kSize);
  const auto data = Data(3 * kCellBytes);
  changes.AddData(4096, data);                       // 0 to 3, 0 and 3 in part
  changes.AddZeroes({10 * kCellBytes + 512, 1024});  // in 10
  changes.AddData(20 * kCellBytes, std::span(data).first(4096));    // in 20
  changes.AddData(200 * kCellBytes, std::span(data).first(12288));  // the last
  ASSERT_THAT((*log)->Append(0, 1, changes), IsOk());
  ASSERT_TRUE(Update(*folder, session));
  Cells expected(kCells, kZeroCell);
  for (const size_t cell : {0U, 3U, 10U, 20U}) expected[cell] = kUnknownCell;
  expected[1] =
      HashOfCell(std::span(data).subspan(kCellBytes - 4096, kCellBytes));
  expected[2] =
      HashOfCell(std::span(data).subspan(2 * kCellBytes - 4096, kCellBytes));
  expected[200] = HashOfCell(std::span(data).first(12288));
  EXPECT_EQ(CellsIn(*folder), expected);
}

TEST_F(ManifestTest, ALogGoesOnWhereItWas) {
  const auto folder = Open(folder_.path());
  const Id128 session = random_.Id();
  {
    const auto log = ManifestLog::Open(*folder, kLog, session, 0);
    ASSERT_THAT(log, IsOk());
    ASSERT_THAT((*log)->Append(0, 5, CellChanges(kSize)), IsOk());
    ASSERT_THAT((*log)->Append(5, 8, CellChanges(kSize)), IsOk());
  }
  SessionRecord record;
  record.id = session;
  record.generation = random_.Id();
  record.source_size = kSize;
  record.chunk_count = 9;
  EXPECT_FALSE(Update(*folder, record));
  {
    // Chunk 7 is sent again.
    const auto log = ManifestLog::Open(*folder, kLog, session, 7);
    ASSERT_THAT(log, IsOk());
    ASSERT_THAT((*log)->Append(7, 9, CellChanges(kSize)), IsOk());
  }
  EXPECT_TRUE(Update(*folder, record));
  // More is durable than the log tells of: it can't be whole any more.
  {
    const auto log = ManifestLog::Open(*folder, kLog, session, 10);
    ASSERT_THAT(log, IsOk());
    ASSERT_THAT((*log)->Append(10, 11, CellChanges(kSize)), IsOk());
  }
  record.chunk_count = 11;
  EXPECT_FALSE(Update(*folder, record));
}

TEST_F(ManifestTest, ALogOfAnotherSessionOrBaseMakesNoManifest) {
  const auto folder = Open(folder_.path());
  Cells cells;
  SessionRecord session = Log(*folder, {}, {{3, false}}, cells);
  ASSERT_TRUE(Update(*folder, session));
  SessionRecord next = Log(*folder, session.generation, {{3, false}}, cells);
  SessionRecord other = next;
  other.id = random_.Id();
  EXPECT_FALSE(Update(*folder, other));
  other = next;
  other.base = random_.Id();
  other.generation = random_.Id();
  EXPECT_FALSE(Update(*folder, other));
}

TEST_F(ManifestTest, NoFlippedBitOfALogMakesAWrongManifest) {
  const auto folder = Open(folder_.path());
  Cells cells(kCells, kZeroCell);
  const SessionRecord session =
      Log(*folder, {}, {{3, false}, {4, true}, {5, false}}, cells);
  const std::string good = ContentsOf(folder_ / kLog);
  for (size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ (1 << (at % 8)));
    WriteContents(folder_ / kLog, bad);
    EXPECT_FALSE(Update(*folder, session)) << at;
  }
}

// Between any two changes of the files, while the log of a delta is written and
// applied, the power goes: what names the base is the base's, and what is
// applied again is whole, or given up.
TEST_F(ManifestTest, NoPowerCutMakesAWrongManifest) {
  uint64_t applied_again = 0;
  for (int round = 0; round < 40; ++round) {
    const TemporaryFolder work;
    Cells base_cells(kCells, kZeroCell);
    SessionRecord base;
    {
      const auto folder = Open(work.path());
      base =
          Log(*folder, {}, {{1, false}, {70, false}, {150, false}}, base_cells);
      ASSERT_TRUE(Update(*folder, base));
      ASSERT_THAT(folder->Remove(kLog), IsOk());
    }
    Recording recording(work.path());
    const auto folder = recording.Wrap(Open(work.path()));
    Cells cells = base_cells;
    const SessionRecord session =
        Log(*folder, base.generation,
            {{1, true}, {2, false}, {70, false}, {130, false}}, cells);
    const size_t committing = recording.size();
    ASSERT_TRUE(Update(*folder, session));
    for (size_t cut = 0; cut <= recording.size(); ++cut) {
      const TemporaryFolder crashed;
      const double loss = static_cast<double>(random_.Below(100));
      recording.MakeCrashed(cut, loss, loss, random_, crashed.path());
      const auto after = Open(crashed.path());
      Id128 generation;
      const Cells found = CellsIn(*after, &generation);
      if (generation == base.generation) {
        ASSERT_EQ(found, base_cells);
      }
      if (cut < committing) continue;
      if (!Update(*after, session)) continue;
      ++applied_again;
      ASSERT_EQ(CellsIn(*after, &generation), cells);
      ASSERT_EQ(generation, session.generation);
    }
  }
  EXPECT_GT(applied_again, 40U);
}

}  // namespace
}  // namespace snapsync
