// SPDX-License-Identifier: Apache-2.0
//
// New images of all shapes, judged by QEMU.
#include "common/qcow2/new_image.h"

#include <sys/stat.h>
#include <unistd.h>

#include "common/base/aligned_buffer.h"
#include "gtest/gtest.h"
#include "tests/testing/qemu.h"
#include "tests/testing/random.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/common/qcow2/image_stage.h"

namespace snapsync::qcow2 {
namespace {

struct Shape {
  std::string name;
  uint32_t cluster_bits;
  Compression compression;
};
void PrintTo(const Shape& shape, std::ostream* out) { *out << shape.name; }

std::vector<Shape> AllShapes() {
  std::vector<Shape> shapes;
  for (const uint32_t bits : {12U, 16U, 20U, 21U}) {
    const std::string size = std::to_string((1U << bits) / 1024) + "K";
    shapes.push_back({size, bits, Compression::kNone});
    shapes.push_back({size + "Zlib", bits, Compression::kZlib});
    shapes.push_back({size + "Zstd", bits, Compression::kZstd});
  }
  return shapes;
}

class NewImageTest : public ::testing::TestWithParam<Shape> {
 protected:
  ImageStage Make(uint64_t size) const {
    return ImageStage(size, GetParam().cluster_bits, GetParam().compression);
  }
};

TEST_P(NewImageTest, OfAnySizeHasWhatWasWritten) {
  const uint64_t cluster = uint64_t{1} << GetParam().cluster_bits;
  for (const uint64_t size :
       {uint64_t{0}, uint64_t{512}, cluster - 512, cluster, cluster + 512,
        5 * cluster + 1024, uint64_t{10 << 20} - 3 * 512}) {
    SCOPED_TRACE(size);
    ImageStage stage = Make(size);
    Random random(size + GetParam().cluster_bits);
    stage.WriteInOrder(random, 1 << 20);
    stage.Commit();
    EXPECT_TRUE(IsCleanImage(stage.path()));
    EXPECT_TRUE(HasContents(stage.path(), stage.expected()));
  }
}

TEST_P(NewImageTest, HasWhatWasWrittenLast) {
  ImageStage stage = Make((7 << 20) + 512);
  Random random(GetParam().cluster_bits);
  for (int i = 0; i < 100; ++i) stage.DoSomething(random);
  stage.Commit();
  EXPECT_TRUE(IsCleanImage(stage.path()));
  EXPECT_TRUE(HasContents(stage.path(), stage.expected()));
}

// Each flush is a place where a crash is survived, and so is any place between
// two: then what came after the last flush comes once more.
TEST_P(NewImageTest, GoesOnWhereItWasFlushed) {
  ImageStage stage = Make((7 << 20) + 512);
  Random random(GetParam().cluster_bits + 100);
  for (int i = 0; i < 12; ++i) {
    for (int j = 0; j < 5; ++j) stage.DoSomething(random);
    stage.Flush();
    const auto promised = stage.expected();
    const Random again = random;
    for (int j = 0; j < 3; ++j) stage.DoSomething(random);
    stage.Crash(promised);
    random = again;
    for (int j = 0; j < 3; ++j) stage.DoSomething(random);
  }
  stage.Commit();
  EXPECT_TRUE(IsCleanImage(stage.path()));
  EXPECT_TRUE(HasContents(stage.path(), stage.expected()));
}

TEST_P(NewImageTest, WhatWasNotFlushedIsNotThereAfterACrash) {
  ImageStage stage = Make(4 << 20);
  Random random(1);
  for (int i = 0; i < 10; ++i) stage.DoSomething(random);
  stage.Flush();
  const auto promised = stage.expected();
  for (int i = 0; i < 10; ++i) stage.DoSomething(random);
  stage.Crash(promised);
  stage.Commit();
  EXPECT_TRUE(IsCleanImage(stage.path()));
  EXPECT_TRUE(HasContents(stage.path(), promised));
}

// Several pieces at once, of whole clusters and of parts of them.
TEST_P(NewImageTest, WhatWasFlushedIsReadBack) {
  ImageStage stage = Make((7 << 20) + 512);
  Random random(GetParam().cluster_bits + 200);
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 10; ++j) stage.DoSomething(random);
    stage.Flush();
    const std::vector<std::byte>& expected = stage.expected();
    AlignedBuffer buffer(expected.size());
    std::vector<ReadOperation> reads;
    for (uint64_t at = 0; at < expected.size();) {
      const uint64_t most = expected.size() - at;
      const uint64_t length =
          std::min(random.Percent(50) ? 512 * random.Between(1, 300)
                                      : ((at >> 20) + 1) * (1 << 20) - at,
                   most);
      reads.push_back({at, buffer.span().subspan(at, length)});
      at += length;
    }
    ASSERT_THAT(stage.writer().ReadBack(reads), IsOk());
    EXPECT_TRUE(std::ranges::equal(buffer.span(), expected));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, NewImageTest, ::testing::ValuesIn(AllShapes()),
                         [](const auto& test) { return test.param.name; });

TEST(NewImage, TakesTheSpaceOfWhatIsInIt) {
  ImageStage stage(uint64_t{8} << 40, 16, Compression::kNone);
  AlignedBuffer buffer(1 << 20);
  Random(1).Fill(buffer.span());
  constexpr uint64_t kPlaces[] = {0, uint64_t{3} << 40,
                                  (uint64_t{8} << 40) - (1 << 20)};
  for (const uint64_t offset : kPlaces) {
    const WriteOperation write{offset, buffer.span()};
    ASSERT_THAT(stage.writer().Write({&write, 1}), IsOk());
  }
  ASSERT_THAT(stage.writer().Zero({1 << 20, uint64_t{1} << 40}), IsOk());
  stage.Commit();
  EXPECT_TRUE(IsCleanImage(stage.path()));
  struct stat facts {};
  ASSERT_EQ(::stat(stage.path().c_str(), &facts), 0);
  EXPECT_LT(facts.st_size, 4 << 20);
  // Raw, such a disk is a file of 8 TiB with three places that are no holes.
  const std::string raw = stage.path() + ".raw";
  RunQemu({"qemu-img", "create", "-f", "raw", raw, "8T"});
  const std::string data(reinterpret_cast<const char*>(buffer.data()),
                         buffer.size());
  for (const uint64_t offset : kPlaces) {
    WriteContentsAt(raw, offset, data);
  }
  EXPECT_TRUE(HasContentsOf(stage.path(), raw));
}

// Tables that do not fit into memory, refcounts that are counted in several
// runs, and a range that is come back to.
TEST(NewImage, OfManyTablesIsWritten) {
  constexpr uint64_t kReach = 2 << 20;  // of a table of 4 KiB
  constexpr uint64_t kTables = 5000;
  constexpr uint64_t kCluster = 4096;
  ImageStage stage(kTables * kReach, 12, Compression::kNone);
  const std::string raw = stage.path() + ".raw";
  RunQemu({"qemu-img", "create", "-f", "raw", raw,
           std::to_string(kTables * kReach)});
  AlignedBuffer buffer(kCluster);
  Random random(3);
  for (uint64_t round = 0; round < 3; ++round) {
    for (uint64_t table = 0; table < kTables; table += 1 + round * 700) {
      random.Fill(buffer.span().first(64));
      const uint64_t offset = table * kReach + (table % 512) * kCluster;
      const WriteOperation write{offset, buffer.span()};
      ASSERT_THAT(stage.writer().Write({&write, 1}), IsOk());
      WriteContentsAt(raw, offset,
                      {reinterpret_cast<const char*>(buffer.data()), kCluster});
    }
    stage.Flush();
    if (round == 1) stage.Crash({});
  }
  stage.Commit(2048 * 3);
  EXPECT_TRUE(IsCleanImage(stage.path()));
  EXPECT_TRUE(HasContentsOf(stage.path(), raw));
}

TEST(NewImage, OfManyRefcountsIsWritten) {
  for (const auto compression : {Compression::kNone, Compression::kZstd}) {
    ImageStage stage(6 << 20, 12, compression);
    Random random(5);
    stage.WriteInOrder(random, 1 << 20);
    stage.Flush();
    // One cluster of the refcount table speaks of a file of 4 GiB.
    stage.SkipTo((5ULL << 30) / 4096 + 7);
    for (int i = 0; i < 20; ++i) stage.DoSomething(random);
    stage.Commit(2048 * 20);
    EXPECT_TRUE(IsCleanImage(stage.path()));
    EXPECT_TRUE(HasContents(stage.path(), stage.expected()));
  }
}

TEST(NewImage, WithoutItsEndIsRefusedByName) {
  ImageStage stage(1 << 20, 16, Compression::kNone);
  Random random(1);
  stage.WriteInOrder(random, 1 << 20);
  stage.Flush();
  EXPECT_FALSE(IsCleanImage(stage.path()));
}

TEST(NewImage, CompressedIsSmaller) {
  for (const auto compression : {Compression::kZlib, Compression::kZstd}) {
    ImageStage stage(4 << 20, 16, compression);
    AlignedBuffer buffer(4 << 20);
    for (size_t i = 0; i < buffer.size(); ++i) {
      buffer.data()[i] = static_cast<std::byte>("SnapSync "[i / 3 % 9]);
    }
    const WriteOperation write{0, buffer.span()};
    ASSERT_THAT(stage.writer().Write({&write, 1}), IsOk());
    stage.Commit();
    EXPECT_TRUE(IsCleanImage(stage.path()));
    EXPECT_TRUE(HasContents(stage.path(), buffer.span()));
    struct stat facts {};
    ASSERT_EQ(::stat(stage.path().c_str(), &facts), 0);
    EXPECT_LT(facts.st_size, 1 << 20);
  }
}

}  // namespace
}  // namespace snapsync::qcow2
