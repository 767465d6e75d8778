// SPDX-License-Identifier: Apache-2.0
#include "common/thin/saved_mappings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "common/base/crc32c.h"
#include "common/base/endian.h"
#include "common/base/error.h"

namespace snapsync {
namespace {

using ::testing::HasSubstr;
using Bytes = std::vector<std::byte>;
using Runs = std::vector<MappingRun>;

SavedMappingsName Name() {
  SavedMappingsName name;
  name.id.bytes.fill(std::byte{1});
  name.generation.bytes.fill(std::byte{2});
  return name;
}

Bytes Encode(const Runs& runs) {
  Bytes file;
  MappingsWriter writer(Name(), [&](std::span<const std::byte> bytes) {
    file.insert(file.end(), bytes.begin(), bytes.end());
    return absl::OkStatus();
  });
  for (const MappingRun& run : runs) {
    for (uint64_t block = 0; block < run.length; ++block) {
      EXPECT_TRUE(
          writer.Add(run.first + block, {run.data_block + block, run.time})
              .ok());
    }
  }
  EXPECT_TRUE(writer.Finish().ok());
  EXPECT_EQ(writer.bytes_written(), file.size());
  return file;
}

absl::StatusOr<Runs> Decode(const Bytes& file,
                            const SavedMappingsName& name = Name()) {
  size_t at = 0;
  auto reader = MappingsReader::Open(
      "f", name, [&](std::span<std::byte> out) -> absl::StatusOr<size_t> {
        // In pieces, as a file may.
        const size_t size = std::min({out.size(), file.size() - at, size_t{7}});
        std::copy_n(file.begin() + static_cast<std::ptrdiff_t>(at), size,
                    out.begin());
        at += size;
        return size;
      });
  if (!reader.ok()) return reader.status();
  Runs runs;
  for (;;) {
    const auto run = reader->Next();
    if (!run.ok()) return run.status();
    if (!*run) return runs;
    runs.push_back(**run);
  }
}

void ExpectRefused(const Bytes& file, const std::string& text) {
  const auto runs = Decode(file);
  ASSERT_FALSE(runs.ok());
  EXPECT_EQ(ReasonOf(runs.status()), Reason::kBaseMismatch);
  EXPECT_THAT(MessageOf(runs.status()), HasSubstr(text));
}

// The whole of a volume of `count` blocks, in pieces of one block that lie
// anywhere, of `times` times.
Runs Fragmented(uint64_t count, uint32_t times) {
  std::mt19937 random(1);
  std::vector<uint64_t> blocks(count);
  std::iota(blocks.begin(), blocks.end(), uint64_t{0});
  std::shuffle(blocks.begin(), blocks.end(), random);
  Runs runs;
  for (uint64_t block = 0; block < count; ++block) {
    runs.push_back({block, 1, blocks[block],
                    static_cast<uint32_t>(random() % times * 100)});
  }
  return runs;
}

TEST(SavedMappings, ComeBackAsTheyWere) {
  EXPECT_EQ(*Decode(Encode({})), Runs{});
  const Runs extremes = {{0, 1, (uint64_t{1} << 40) - 1, (1U << 24) - 1},
                         {5, 100000, 0, 0},
                         {(uint64_t{1} << 48) - 1, 1, 77, 3}};
  EXPECT_EQ(*Decode(Encode(extremes)), extremes);
  std::mt19937_64 random(2);
  for (int round = 0; round < 30; ++round) {
    Runs runs;
    uint64_t at = 0;
    for (uint64_t count = random() % 10000; count > 0; --count) {
      MappingRun run;
      run.first = at + 1 + (random() % 20 == 0 ? random() % 1000000 : 0);
      run.length = 1 + (random() % 10 == 0 ? random() % 300 : 0);
      run.data_block = random() % (uint64_t{1} << (10 + round));
      run.time = static_cast<uint32_t>(random() % (1 << round % 24));
      at = run.end();
      runs.push_back(run);
    }
    const auto back = Decode(Encode(runs));
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(*back, runs);
  }
}

TEST(SavedMappings, TakeAtMostFourBytesEachHoweverFragmented) {
  constexpr uint64_t kCount = uint64_t{1} << 20;
  for (const uint32_t times : {1U, 24U, 64U}) {
    const Bytes file = Encode(Fragmented(kCount, times));
    const double each = static_cast<double>(file.size()) / kCount;
    RecordProperty("bytes_of_" + std::to_string(times) + "_times",
                   std::to_string(each));
    EXPECT_LE(each, 4.0) << times;
  }
}

TEST(SavedMappings, TakeLittleWhereTheyAreContiguous) {
  Runs runs;
  for (uint64_t run = 0; run < 100; ++run) {
    runs.push_back({run * 10000, 9000, run * 20000, 1});
  }
  EXPECT_LE(Encode(runs).size(), 100 * 10 + 120U);
}

TEST(SavedMappings, EveryDamagedOrMissingByteIsFound) {
  Runs runs = Fragmented(150, 5);
  runs.push_back({1000, 300, 7, 2});
  const Bytes good = Encode(runs);
  for (size_t at = 0; at < good.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      Bytes bad = good;
      bad[at] ^= static_cast<std::byte>(1U << bit);
      ExpectRefused(bad, "f: the saved mappings, at byte");
    }
    ExpectRefused({good.begin(), good.begin() + static_cast<long>(at)},
                  "f: the saved mappings, at byte");
  }
  Bytes longer = good;
  longer.push_back(std::byte{0});
  ExpectRefused(longer, "the end says");
}

TEST(SavedMappings, AreOfOneGenerationAndOneWriting) {
  const Bytes file = Encode({{1, 1, 1, 1}});
  SavedMappingsName other = Name();
  other.generation.bytes.fill(std::byte{9});
  EXPECT_THAT(MessageOf(Decode(file, other).status()),
              HasSubstr("expected those of 0909"));
  other = Name();
  other.id.bytes.fill(std::byte{9});
  EXPECT_FALSE(Decode(file, other).ok());
}

// What has a right checksum may be wrong all the same.
TEST(SavedMappings, WhatNoPoolHasIsRefusedBehindARightChecksum) {
  const Bytes good = Encode({{10, 1, 5, 1}, {20, 2, 9, 2}, {30, 1, 5, 1}});
  constexpr size_t kGroup = 44;
  const size_t body = good.size() - 32 - 4 - kGroup;
  const auto changed = [&](size_t at, auto value, size_t group, size_t size) {
    Bytes file = good;
    StoreLittle(&file[group + at], value);
    StoreLittle(&file[group + size],
                Crc32c(std::span(file).subspan(group, size)));
    return file;
  };
  const std::string header = "in the group's header";
  ExpectRefused(changed(0, uint32_t{4097}, kGroup, body), header);
  ExpectRefused(changed(8, ~uint64_t{0}, kGroup, body), header);
  ExpectRefused(changed(16, uint64_t{1} << 40, kGroup, body), header);
  ExpectRefused(changed(24, uint8_t{41}, kGroup, body), header);
  ExpectRefused(changed(25, uint8_t{13}, kGroup, body), header);
  ExpectRefused(changed(26, uint16_t{0}, kGroup, body), header);
  ExpectRefused(changed(26, uint16_t{4}, kGroup, body), header);
  ExpectRefused(changed(0, uint32_t{2}, kGroup, body), "more bytes than runs");
  ExpectRefused(changed(0, uint32_t{9}, kGroup, body), "run ");
  ExpectRefused(changed(28, uint32_t{1} << 24, kGroup, body), "run 0");
  ExpectRefused(changed(4, ~uint32_t{0}, kGroup, body), "a group of");
  ExpectRefused(changed(8, uint64_t{5}, good.size() - 32, 28),
                "the end says 5 mappings, found were 4");
  ExpectRefused(changed(4, uint32_t{2}, 0, 40), "version 2, expected 1");
}

TEST(SavedMappings, OutOfOrderCannotBeWritten) {
  MappingsWriter writer(Name(), [](auto) { return absl::OkStatus(); });
  EXPECT_TRUE(writer.Add(5, {1, 1}).ok());
  EXPECT_EQ(ReasonOf(writer.Add(5, {2, 1})), Reason::kIo);
  EXPECT_EQ(ReasonOf(writer.Add(uint64_t{1} << 48, {2, 1})), Reason::kIo);
}

}  // namespace
}  // namespace snapsync
