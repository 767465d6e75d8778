// SPDX-License-Identifier: Apache-2.0
#include "common/block/file_device.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "common/base/aligned_buffer.h"
#include "common/base/units.h"
#include "gtest/gtest.h"
#include "tests/testing/random.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync {
namespace {

constexpr uint64_t kSize = kMiB;

// A file of kSize random bytes.
class FileDeviceTest : public testing::Test {
 protected:
  FileDeviceTest() : contents_(kSize, '\0') {
    random_.Fill(std::as_writable_bytes(std::span(contents_)));
    WriteContents(path_, contents_);
  }

  std::unique_ptr<BlockWriter> OpenWriter(const WriterOptions& options = {}) {
    auto writer = OpenFileWriter(path_, options);
    EXPECT_THAT(writer, IsOk());
    return *std::move(writer);
  }
  uint64_t AllocatedBytes() const {
    struct stat facts {};
    EXPECT_EQ(::stat(path_.c_str(), &facts), 0);
    return static_cast<uint64_t>(facts.st_blocks) * 512;
  }
  void MakeSparse(uint64_t size) const {
    WriteContents(path_, "");
    ASSERT_EQ(::truncate(path_.c_str(), static_cast<off_t>(size)), 0);
  }

  Random random_{1};
  const TemporaryFolder folder_;
  const std::string path_ = folder_ / "disk";
  std::string contents_;
};

TEST_F(FileDeviceTest, WhatCantBeOpenedIsNamed) {
  EXPECT_THAT(OpenFileReader(folder_ / "none"), FailsWith(Reason::kIo, "none"));
  EXPECT_THAT(OpenFileWriter(folder_ / "none", {}),
              FailsWith(Reason::kIo, "none"));
  EXPECT_THAT(OpenFileReader("/dev/null"),
              FailsWith(Reason::kTargetUnsuitable, "/dev/null"));
  EXPECT_THAT(OpenFileReader(folder_.path()),
              FailsWith(Reason::kTargetUnsuitable, folder_.path()));
}

TEST_F(FileDeviceTest, NothingHappensBeyondTheEnd) {
  const auto reader = OpenFileReader(path_);
  ASSERT_THAT(reader, IsOk());
  AlignedBuffer buffer(4096);
  for (const uint64_t offset :
       {kSize - 512, kSize, kSize + 4096, UINT64_MAX - 511}) {
    const ReadOperation read{offset, buffer.span()};
    EXPECT_THAT((*reader)->Read({&read, 1}),
                FailsWith(Reason::kIo, "beyond the end (1048576 bytes)"));
    const auto writer = OpenWriter();
    const WriteOperation write{offset, buffer.span()};
    EXPECT_THAT(writer->Write({&write, 1}), FailsWith(Reason::kIo, path_));
    EXPECT_THAT(writer->Zero({offset, 4096}),
                FailsWith(Reason::kIo, "beyond the end"));
  }
  EXPECT_EQ(ContentsOf(path_), contents_);
}

TEST_F(FileDeviceTest, ManyReadsOfAllSizesComeBackInTheirPlaces) {
  const auto reader = OpenFileReader(path_);
  ASSERT_THAT(reader, IsOk());
  EXPECT_EQ((*reader)->size(), kSize);
  EXPECT_EQ((*reader)->name(), path_);
  for (int round = 0; round < 5; ++round) {
    std::vector<AlignedBuffer> buffers;
    std::vector<ReadOperation> reads;
    for (int i = 0; i < 200; ++i) {
      const uint64_t offset = random_.Below(kSize / 4096) * 4096;
      const uint64_t length =
          std::min(random_.Between(1, 16) * 4096, kSize - offset);
      buffers.emplace_back(length);
      reads.push_back({offset, buffers.back().span()});
    }
    ASSERT_THAT((*reader)->Read(reads), IsOk());
    for (const ReadOperation& read : reads) {
      ASSERT_EQ(0, std::memcmp(read.data.data(), contents_.data() + read.offset,
                               read.data.size()));
    }
  }
  EXPECT_THAT((*reader)->Read({}), IsOk());
}

TEST_F(FileDeviceTest, WhatIsWrittenIsReadBackAndTheRestIsLeft) {
  const auto writer = OpenWriter();
  std::vector<AlignedBuffer> buffers;
  std::vector<WriteOperation> writes;
  for (uint64_t block = 0; block < kSize / 4096; block += 3) {
    AlignedBuffer& buffer = buffers.emplace_back(4096);
    random_.Fill(buffer.span());
    writes.push_back({block * 4096, buffer.span()});
    contents_.replace(block * 4096, 4096,
                      reinterpret_cast<const char*>(buffer.data()), 4096);
  }
  ASSERT_THAT(writer->Write(writes), IsOk());
  ASSERT_THAT(writer->Flush(), IsOk());
  EXPECT_EQ(ContentsOf(path_), contents_);
}

TEST_F(FileDeviceTest, SeveralThreadsWriteAtATime) {
  const auto writer = OpenWriter();
  constexpr uint64_t kThreads = 4;
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&writer, t] {
      AlignedBuffer buffer(4096);
      std::fill_n(buffer.data(), buffer.size(), static_cast<std::byte>(t));
      for (uint64_t block = t; block < kSize / 4096; block += kThreads) {
        const WriteOperation write{block * 4096, buffer.span()};
        EXPECT_THAT(writer->Write({&write, 1}), IsOk());
      }
      EXPECT_THAT(writer->Flush(), IsOk());
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::string written = ContentsOf(path_);
  for (uint64_t block = 0; block < kSize / 4096; ++block) {
    ASSERT_EQ(written[block * 4096], static_cast<char>(block % kThreads));
  }
}

TEST_F(FileDeviceTest, ZeroesAreExactlyWhereTheyWereAskedFor) {
  for (int i = 0; i < 30; ++i) {
    const uint64_t offset = random_.Below(kSize / 512) * 512;
    const uint64_t length =
        random_.Between(0, std::min<uint64_t>(200, (kSize - offset) / 512)) *
        512;
    ASSERT_THAT(OpenWriter()->Zero({offset, length}), IsOk());
    contents_.replace(offset, length, length, '\0');
    ASSERT_EQ(ContentsOf(path_), contents_) << offset << " " << length;
  }
}

TEST_F(FileDeviceTest, ZeroesTakeNoSpace) {
  const uint64_t before = AllocatedBytes();
  ASSERT_THAT(OpenWriter()->Zero({0, kSize}), IsOk());
  EXPECT_EQ(ContentsOf(path_), std::string(kSize, '\0'));
  EXPECT_LT(AllocatedBytes(), before / 4);
  MakeSparse(kSize);
  ASSERT_THAT(OpenWriter()->Zero({4096, kSize / 2}), IsOk());
  EXPECT_LT(AllocatedBytes(), kSize / 4);
}

// A part of a pool's block can't be discarded: it is written where it has to.
TEST_F(FileDeviceTest, APartOfAThinBlockIsWrittenOnlyIfItIsNotZeroAlready) {
  WriterOptions options;
  options.zero_method = ZeroMethod::kThinDiscard;
  options.discard_block = 2 * kSize;
  ASSERT_THAT(OpenWriter(options)->Zero({kSize / 4, kSize / 2}), IsOk());
  contents_.replace(kSize / 4, kSize / 2, kSize / 2, '\0');
  EXPECT_EQ(ContentsOf(path_), contents_);
  MakeSparse(kSize);
  ASSERT_THAT(OpenWriter(options)->Zero({512, kSize - 512}), IsOk());
  EXPECT_EQ(AllocatedBytes(), 0U);
}

TEST_F(FileDeviceTest, AFileThatShrankUnderAReaderIsAnErrorNotZeroes) {
  const auto reader = OpenFileReader(path_);
  ASSERT_THAT(reader, IsOk());
  ASSERT_EQ(::truncate(path_.c_str(), kSize / 2), 0);
  AlignedBuffer buffer(kSize);
  const ReadOperation across{0, buffer.span()};
  EXPECT_THAT((*reader)->Read({&across, 1}), FailsWith(Reason::kIo, path_));
  const ReadOperation behind{kSize / 2, buffer.span().first(4096)};
  EXPECT_THAT((*reader)->Read({&behind, 1}),
              FailsWith(Reason::kIo, "offset 524288"));
}

TEST_F(FileDeviceTest, OneBadOperationAmongManyFailsTheCall) {
  const auto reader = OpenFileReader(path_);
  ASSERT_THAT(reader, IsOk());
  ASSERT_EQ(::truncate(path_.c_str(), kSize - 4096), 0);
  AlignedBuffer buffer(kSize);
  std::vector<ReadOperation> reads;
  for (uint64_t at = 0; at < kSize; at += 4096) {
    reads.push_back({at, buffer.span().subspan(at, 4096)});
  }
  EXPECT_THAT((*reader)->Read(reads), FailsWith(Reason::kIo, "offset 1044480"));
  // The rings are in order afterwards.
  EXPECT_THAT((*reader)->Read(std::span(reads).first(10)), IsOk());
}

TEST_F(FileDeviceTest, AWriterIsCalledWhatItsOptionsSay) {
  WriterOptions options;
  options.name = "volume a";
  EXPECT_EQ(OpenWriter(options)->name(), "volume a");
  EXPECT_EQ(OpenWriter()->name(), path_);
  EXPECT_THAT(OpenWriter(options)->Zero({kSize, 512}),
              FailsWith(Reason::kIo, "volume a"));
}

}  // namespace
}  // namespace snapsync
