// SPDX-License-Identifier: Apache-2.0
//
// Generation after generation in one file, judged by QEMU.
#include "common/qcow2/image_update.h"

#include <sys/stat.h>

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

uint64_t BytesOnDisk(const std::string& path) {
  struct stat facts {};
  EXPECT_EQ(::stat(path.c_str(), &facts), 0);
  return static_cast<uint64_t>(facts.st_blocks) * 512;
}

class ImageUpdateTest : public ::testing::TestWithParam<Shape> {
 protected:
  ImageUpdateTest()
      : stage_(kSize, GetParam().cluster_bits, GetParam().compression),
        random_(GetParam().cluster_bits) {
    stage_.WriteInOrder(random_, 1 << 20);
    stage_.Commit();
  }

  void ExpectGood() {
    EXPECT_TRUE(IsCleanImage(stage_.path()));
    EXPECT_TRUE(HasContents(stage_.path(), stage_.expected()));
  }

  static constexpr uint64_t kSize = (5 << 20) - 512;
  ImageStage stage_;
  Random random_;
};

TEST_P(ImageUpdateTest, GenerationAfterGenerationIsWhatWasWritten) {
  // Large clusters take long and add little.
  const int generations = GetParam().cluster_bits == 16 ? 30 : 5;
  for (int generation = 0; generation < generations; ++generation) {
    SCOPED_TRACE(generation);
    const auto before = stage_.expected();
    stage_.BeginNext(kSize);
    for (int i = 0; i < 10; ++i) stage_.DoSomething(random_);
    if (generation % 10 == 5) {
      // Until the commit the file is the generation before.
      stage_.Flush();
      EXPECT_TRUE(IsCleanImage(stage_.path()));
      EXPECT_TRUE(HasContents(stage_.path(), before));
    }
    stage_.Commit();
    ExpectGood();
    if (HasFailure()) return;
  }
}

TEST_P(ImageUpdateTest, GoesOnWhereItWasFlushed) {
  stage_.BeginNext(kSize);
  for (int i = 0; i < 10; ++i) {
    for (int j = 0; j < 3; ++j) stage_.DoSomething(random_);
    stage_.Flush();
    const auto promised = stage_.expected();
    const Random again = random_;
    for (int j = 0; j < 3; ++j) stage_.DoSomething(random_);
    stage_.Crash(promised);
    random_ = again;
    for (int j = 0; j < 3; ++j) stage_.DoSomething(random_);
  }
  stage_.Commit();
  ExpectGood();
}

TEST_P(ImageUpdateTest, GivenUpItLeavesTheFileAsItWas) {
  for (int round = 0; round < 2; ++round) {
    const std::string before = ContentsOf(stage_.path());
    const uint64_t on_disk = BytesOnDisk(stage_.path());
    const auto expected = stage_.expected();
    stage_.BeginNext(kSize);
    for (int i = 0; i < 10; ++i) stage_.DoSomething(random_);
    stage_.Flush();
    for (int i = 0; i < 5; ++i) stage_.DoSomething(random_);
    stage_.GiveUp();
    EXPECT_EQ(ContentsOf(stage_.path()) == before, true);
    // The file system may have had to take a block to keep its notes in.
    EXPECT_LE(BytesOnDisk(stage_.path()), on_disk + (64 << 10));
    // Once more, over an image with holes.
    stage_.BeginNext(kSize);
    stage_.Crash(expected);
    for (int i = 0; i < 10; ++i) stage_.DoSomething(random_);
    stage_.Commit();
    ExpectGood();
  }
}

TEST_P(ImageUpdateTest, ASizeMayChange) {
  constexpr uint64_t kSizes[] = {
      kSize + (11 << 20) + 512, 3 << 20, (3 << 20) - 1536, 512,
      (6 << 20) + 512 * 7,      0,       2 << 20,          uint64_t{33} << 20};
  for (const uint64_t size : kSizes) {
    SCOPED_TRACE(size);
    stage_.BeginNext(size);
    if (size > 512) {
      for (int i = 0; i < 5; ++i) stage_.DoSomething(random_);
    }
    stage_.Flush();
    stage_.Crash(stage_.expected());
    stage_.Commit();
    ExpectGood();
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, ImageUpdateTest,
                         ::testing::ValuesIn(AllShapes()),
                         [](const auto& test) { return test.param.name; });

// One cluster of the refcount table speaks of a file of 4 GiB.
TEST(ImageUpdate, OfManyRefcountsIsWritten) {
  for (const uint64_t skipped :
       {uint64_t{5} << 30, (uint64_t{4} << 30) - (9 << 20)}) {
    SCOPED_TRACE(skipped);
    ImageStage stage(6 << 20, 12, Compression::kNone);
    Random random(5);
    stage.SkipTo(skipped / 4096);
    stage.WriteInOrder(random, 1 << 20);
    stage.Commit();
    stage.WriteAtEndOnly();
    for (uint64_t generation = 0; generation < 6; ++generation) {
      stage.BeginNext(6 << 20);
      stage.WriteKind({generation << 20, 1 << 20}, random, 0);
      stage.Commit();
      EXPECT_TRUE(IsCleanImage(stage.path()));
      EXPECT_TRUE(HasContents(stage.path(), stage.expected()));
    }
  }
}

TEST(ImageUpdate, ManyGenerationsTakeNoMoreSpaceThanAFew) {
  for (const auto compression : {Compression::kNone, Compression::kZstd}) {
    constexpr uint64_t kSize = 9 << 20;
    ImageStage stage(kSize, 16, compression);
    Random random(1);
    stage.WriteInOrder(random, 1 << 20);
    stage.Commit();
    uint64_t after_ten = 0;
    for (int generation = 0; generation < 30; ++generation) {
      stage.BeginNext(kSize);
      for (uint64_t at = 0; at < (6 << 20); at += 2 << 20) {
        stage.WriteKind({at, 1 << 20}, random, 0);
      }
      stage.Commit();
      if (generation == 10)
        after_ten = std::filesystem::file_size(stage.path());
    }
    EXPECT_TRUE(IsCleanImage(stage.path()));
    EXPECT_TRUE(HasContents(stage.path(), stage.expected()));
    EXPECT_LE(std::filesystem::file_size(stage.path()), after_ten + (2U << 16));
  }
}

}  // namespace
}  // namespace snapsync::qcow2
