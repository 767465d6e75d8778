// SPDX-License-Identifier: Apache-2.0
//
// Metadata made by a real kernel (tests/data/thin/make-fixtures), against what
// its devices were read to contain.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "common/base/error.h"
#include "common/thin/guarded_delta.h"
#include "tests/unit/common/thin/memory_metadata.h"

namespace snapsync {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string Fixture(const std::string& name) {
  return std::string(SNAPSYNC_THIN_FIXTURES) + "/" + name;
}

std::vector<std::byte> Image(const std::string& name) {
  std::error_code error;
  const auto size = std::filesystem::file_size(Fixture(name), error);
  EXPECT_FALSE(error) << name;
  std::vector<std::byte> image(error ? 0 : size);
  std::ifstream file(Fixture(name), std::ios::binary);
  file.read(reinterpret_cast<char*>(image.data()),
            static_cast<std::streamsize>(image.size()));
  EXPECT_TRUE(file.good()) << name;
  return image;
}

struct Pair {
  std::string image;
  bool held = false;
  std::string base;
  uint32_t snapshot = 0;
  uint64_t base_size = 0;
  uint64_t size = 0;
  ExtentList changed;
  ExtentList gone;
};

void PrintTo(const Pair& pair, std::ostream* out) {
  *out << pair.image << (pair.held ? " held " : " ") << pair.base << " to "
       << pair.snapshot;
}

std::vector<Pair> ReadTruth(const std::string& folder) {
  std::vector<Pair> pairs;
  std::ifstream file(Fixture(folder + "/truth.txt"));
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string word;
    words >> word;
    if (word == "pair") {
      Pair& pair = pairs.emplace_back();
      words >> pair.image >> pair.held >> pair.base >> pair.snapshot >>
          pair.base_size >> pair.size;
      EXPECT_FALSE(words.fail()) << line;
    } else {
      ExtentList& list =
          word == "gone" ? pairs.back().gone : pairs.back().changed;
      for (Extent extent; words >> extent.offset >> extent.length;) {
        list.Append(extent);
      }
    }
  }
  return pairs;
}

// The record of a device as a sync would have kept it, whatever the guards say
// of it.
BaseRecord RecordOf(MetadataReader& metadata, bool held, uint32_t id,
                    uint64_t size) {
  auto view = PoolView::Open(metadata, held);
  EXPECT_TRUE(view.ok()) << view.status();
  auto device = view->RequireDevice(id);
  EXPECT_TRUE(device.ok()) << device.status();
  BaseRecord record;
  record.device_id = id;
  record.transaction_id = device->transaction_id;
  record.creation_time = device->creation_time;
  record.snapshotted_time = device->snapshotted_time;
  record.mapped_blocks = device->mapped_blocks;
  record.pool_time = view->superblock().time;
  record.pool_transaction_id = view->superblock().transaction_id;
  record.data_block_sectors = view->superblock().data_block_sectors;
  record.device_size = size;
  return record;
}

absl::StatusOr<GuardedDelta> Guarded(MetadataReader& metadata, bool held,
                                     const DeltaRequest& request) {
  auto view = PoolView::Open(metadata, held);
  if (!view.ok()) return view.status();
  return ComputeDelta(*view, request);
}

class FixtureWithTruth : public ::testing::TestWithParam<std::string> {};

TEST_P(FixtureWithTruth, GivesExactlyWhatTheDevicesWereReadToDifferIn) {
  const std::vector<Pair> pairs = ReadTruth(GetParam());
  ASSERT_FALSE(pairs.empty());
  for (const Pair& pair : pairs) {
    SCOPED_TRACE(::testing::PrintToString(pair));
    const auto metadata = OpenMetadata(Fixture(GetParam() + "/" + pair.image));
    ASSERT_TRUE(metadata.ok()) << metadata.status();
    DeltaRequest request;
    request.snapshot_id = pair.snapshot;
    request.snapshot_size = pair.size;
    if (pair.base != "none") {
      request.base = RecordOf(**metadata, pair.held,
                              static_cast<uint32_t>(std::stoul(pair.base)),
                              pair.base_size);
    }
    const auto result = Guarded(**metadata, pair.held, request);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->delta.changed, pair.changed);
    EXPECT_EQ(result->delta.gone, pair.gone);
    EXPECT_EQ(result->record,
              RecordOf(**metadata, pair.held, pair.snapshot, pair.size));
  }
}

INSTANTIATE_TEST_SUITE_P(Kernel, FixtureWithTruth,
                         ::testing::Values("linear", "discards", "resized",
                                           "large-blocks", "held-root",
                                           "empty"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::erase(name, '-');
                           return name;
                         });

struct Refusal {
  const char* folder;
  const char* image;
  uint32_t snapshot;
  Guard guard;
};

void PrintTo(const Refusal& refusal, std::ostream* out) {
  *out << refusal.folder << '/' << refusal.image;
}

class BaseThatChanged : public ::testing::TestWithParam<Refusal> {};

TEST_P(BaseThatChanged, IsRefusedByItsGuard) {
  const std::string folder = GetParam().folder;
  MemoryMetadata synced(Image(folder + "/synced.img"));
  MemoryMetadata now(Image(folder + "/" + GetParam().image));
  DeltaRequest request;
  request.snapshot_id = GetParam().snapshot;
  request.snapshot_size = 4 << 20;
  request.base = RecordOf(synced, false, 1, 4 << 20);
  const auto result = Guarded(now, false, request);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(ReasonOf(result.status()), Reason::kBaseMismatch);
  EXPECT_EQ(GuardOf(result.status()), GetParam().guard) << result.status();
  EXPECT_THAT(
      MessageOf(result.status()),
      StartsWith("G" + std::to_string(static_cast<int>(GetParam().guard)) +
                 ": "));
  EXPECT_THAT(MessageOf(result.status()), HasSubstr("found"));
  EXPECT_THAT(MessageOf(result.status()), HasSubstr("expected"));
}

INSTANTIATE_TEST_SUITE_P(
    Kernel, BaseThatChanged,
    ::testing::Values(
        Refusal{"base-written", "now.img", 2, Guard::kBaseFrozen},
        Refusal{"base-written-unshared", "now.img", 2, Guard::kBaseFrozen},
        Refusal{"base-trimmed", "now.img", 2, Guard::kSameDevice},
        Refusal{"base-replaced", "deleted.img", 2, Guard::kSameDevice},
        Refusal{"base-replaced", "reused.img", 2, Guard::kSameDevice}));

TEST(Fixture, ASnapshotThatWasWrittenToIsRefused) {
  MemoryMetadata metadata(Image("base-written/synced.img"));
  DeltaRequest request;
  request.snapshot_id = 1;
  request.snapshot_size = 4 << 20;
  const auto result = Guarded(metadata, false, request);
  EXPECT_EQ(GuardOf(result.status()), Guard::kSnapshotFrozen)
      << result.status();
}

TEST(Fixture, AnOriginIsRefusedAsBaseAndAsSnapshot) {
  MemoryMetadata metadata(Image("linear/pool.img"));
  DeltaRequest request;
  request.snapshot_id = 0;
  request.snapshot_size = 8 << 20;
  EXPECT_EQ(GuardOf(Guarded(metadata, false, request).status()),
            Guard::kSnapshotFrozen);
  request.snapshot_id = 4;
  request.base = RecordOf(metadata, false, 0, 8 << 20);
  EXPECT_EQ(GuardOf(Guarded(metadata, false, request).status()),
            Guard::kBaseFrozen);
}

TEST(Fixture, AMetadataSnapshotThatIsNotThereIsAnError) {
  MemoryMetadata metadata(Image("linear/pool.img"));
  const auto view = PoolView::Open(metadata, true);
  EXPECT_EQ(ReasonOf(view.status()), Reason::kIo);
  EXPECT_THAT(MessageOf(view.status()), HasSubstr("no metadata snapshot"));
}

// All deltas of an image; nullopt for those that end in an error, which must be
// one that says what is the matter.
std::vector<std::optional<Delta>> AllDeltas(MemoryMetadata& metadata) {
  std::vector<std::optional<Delta>> deltas;
  for (const bool held : {false, true}) {
    for (const std::optional<uint32_t> base :
         {std::optional<uint32_t>(), std::optional<uint32_t>(1)}) {
      for (const uint32_t id : {2U, 3U}) {
        std::optional<Delta>& delta = deltas.emplace_back();
        auto view = PoolView::Open(metadata, held);
        absl::Status status = view.status();
        if (status.ok()) {
          std::optional<ThinDevice> base_device;
          auto device = view->RequireDevice(id);
          status = device.status();
          if (status.ok() && base) {
            auto found = view->RequireDevice(*base);
            status = found.status();
            if (found.ok()) base_device = *found;
          }
          if (status.ok()) {
            auto compared = CompareDevices(*view, base_device, *device, {});
            status = compared.status();
            if (compared.ok()) delta = std::move(compared->delta);
          }
        }
        if (!status.ok()) {
          EXPECT_TRUE(ReasonOf(status) == Reason::kIo ||
                      ReasonOf(status) == Reason::kUsage)
              << status;
          EXPECT_THAT(MessageOf(status), HasSubstr("memory"));
        }
      }
    }
  }
  return deltas;
}

void ExpectErrorOrTheSame(const std::vector<std::optional<Delta>>& damaged,
                          const std::vector<std::optional<Delta>>& right) {
  for (size_t index = 0; index < right.size(); ++index) {
    if (!damaged[index]) continue;
    ASSERT_TRUE(right[index].has_value());
    EXPECT_EQ(damaged[index]->changed, right[index]->changed);
    EXPECT_EQ(damaged[index]->gone, right[index]->gone);
  }
}

TEST(Fixture, RandomDamageGivesAnErrorOrTheRightDelta) {
  const std::vector<std::byte> image = Image("held-root/pool.img");
  MemoryMetadata good(image);
  const auto right = AllDeltas(good);
  const std::vector<uint64_t> used(good.read().begin(), good.read().end());
  std::mt19937 random(1);
  MemoryMetadata metadata(image);
  int errors = 0;
  for (int mutation = 0; mutation < 1000; ++mutation) {
    SCOPED_TRACE(mutation);
    std::byte* block = metadata.block(used[random() % used.size()]);
    const std::vector<std::byte> undamaged(block, block + kMetadataBlockSize);
    switch (random() % 3) {
      case 0:  // a bit
        block[random() % kMetadataBlockSize] ^=
            static_cast<std::byte>(1U << random() % 8);
        break;
      case 1:  // a block of noise
        for (size_t at = 0; at < kMetadataBlockSize; ++at) {
          block[at] = static_cast<std::byte>(random());
        }
        break;
      default:  // another block in its place
        std::memcpy(block, metadata.block(used[random() % used.size()]),
                    kMetadataBlockSize);
    }
    const auto damaged = AllDeltas(metadata);
    ExpectErrorOrTheSame(damaged, right);
    errors += static_cast<int>(
        std::count(damaged.begin(), damaged.end(), std::nullopt));
    std::copy(undamaged.begin(), undamaged.end(), block);
  }
  EXPECT_GT(errors, 1000);
}

// With the checksum made right again, damage can be a state that might have
// been: nothing but memory and time can be promised.
TEST(Fixture, DamageUnderARightChecksumEndsInBoundedTime) {
  const std::vector<std::byte> image = Image("held-root/pool.img");
  MemoryMetadata good(image);
  AllDeltas(good);
  const std::vector<uint64_t> used(good.read().begin(), good.read().end());
  std::mt19937 random(2);
  MemoryMetadata metadata(image);
  for (int mutation = 0; mutation < 3000; ++mutation) {
    const uint64_t number = used[random() % used.size()];
    std::byte* block = metadata.block(number);
    const bool superblock =
        LoadLittle<uint64_t>(block + kSuperblockMagicAt) == kSuperblockMagic;
    const std::vector<std::byte> undamaged(block, block + kMetadataBlockSize);
    const size_t at = 4 + random() % 400;
    switch (random() % 3) {
      case 0:
        block[at] ^= static_cast<std::byte>(1U << random() % 8);
        break;
      case 1:
        StoreLittle<uint64_t>(block + at / 8 * 8, random() % 600);
        break;
      default:  // a pointer to some other node
        StoreLittle<uint64_t>(
            block + kNodeKeysAt + 252 * kKeySize + random() % 40 * 8,
            used[random() % used.size()]);
    }
    metadata.Seal(number, superblock ? kSuperblockSalt : kNodeSalt);
    AllDeltas(metadata);
    std::copy(undamaged.begin(), undamaged.end(), block);
  }
}

}  // namespace
}  // namespace snapsync
