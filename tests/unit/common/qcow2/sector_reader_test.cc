// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/sector_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include "common/base/aligned_buffer.h"
#include "gtest/gtest.h"
#include "tests/testing/random.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync::qcow2 {
namespace {

std::shared_ptr<const HostFile> Open(const std::string& path) {
  auto file = HostFile::Make(
      UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)), path);
  EXPECT_THAT(file, IsOk());
  return *std::move(file);
}

std::string RandomBytes(uint64_t seed, size_t size) {
  Random random(seed);
  std::string bytes(size, '\0');
  random.Fill(std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

// Has what was written leave the page cache, where the file system has one.
void Evict(const HostFile& file) {
  ::fdatasync(file.fd());
  ::posix_fadvise(file.fd(), 0, 0, POSIX_FADV_DONTNEED);
}

TEST(SectorReader, ReadsTheSameFromTheCacheAndFromTheDisk) {
  TemporaryFolder folder;
  // The second one's last sector is not whole.
  const std::vector<std::string> contents = {RandomBytes(1, 300000 / 512 * 512),
                                             RandomBytes(2, 100000)};
  WriteContents(folder / "0", contents[0]);
  WriteContents(folder / "1", contents[1]);
  const std::vector<std::shared_ptr<const HostFile>> files = {
      Open(folder / "0"), Open(folder / "1")};
  const auto reader = SectorReader::Make(files);
  ASSERT_THAT(reader, IsOk());
  EXPECT_EQ((*reader)->file_count(), 2U);
  EXPECT_EQ((*reader)->SectorBytes(0), contents[0].size());
  EXPECT_EQ((*reader)->SectorBytes(1), (100000U + 511) / 512 * 512);

  Random random(3);
  for (int round = 0; round < 60; ++round) {
    if (round % 3 == 0) {
      for (const auto& file : files) Evict(*file);
    }
    AlignedBuffer buffer(1 << 20);
    std::vector<SectorReader::Part> parts;
    size_t used = 0;
    uint64_t at = 0;
    for (int count = 0; count < 10; ++count) {
      const auto file = static_cast<uint32_t>(random.Below(2));
      const uint64_t sectors = (*reader)->SectorBytes(file) / 512;
      // Half of them go on where the one before ended.
      if (random.Percent(50) || at >= sectors * 512) {
        at = random.Below(sectors) * 512;
      }
      const uint64_t length =
          (1 + random.Below(std::min<uint64_t>(sectors - at / 512, 100))) * 512;
      parts.push_back({file, {at, buffer.span().subspan(used, length)}});
      used += length;
      at += length;
    }
    ASSERT_THAT((*reader)->Read(parts), IsOk());
    for (const SectorReader::Part& part : parts) {
      std::string expected =
          contents[part.file].substr(part.read.offset, part.read.data.size());
      expected.resize(part.read.data.size(), '\0');
      ASSERT_TRUE(std::memcmp(expected.data(), part.read.data.data(),
                              expected.size()) == 0)
          << part.file << " " << part.read.offset;
    }
  }
}

TEST(HostFile, KnowsWhatIsInThePageCache) {
  TemporaryFolder folder;
  WriteContents(folder / "file", RandomBytes(1, 100000));
  const auto file = Open(folder / "file");
  EXPECT_TRUE(file->IsCached(0, 100000));
  EXPECT_TRUE(file->IsCached(12345, 50000));
  EXPECT_FALSE(file->IsCached(200000, 4096));
}

TEST(HostFile, ReadsZeroesBeyondItsEnd) {
  TemporaryFolder folder;
  WriteContents(folder / "file", "0123456789");
  const auto file = Open(folder / "file");
  std::string out(8, 'x');
  EXPECT_THAT(file->Read(6, std::as_writable_bytes(std::span(out))), IsOk());
  EXPECT_EQ(out, std::string("6789\0\0\0\0", 8));
  EXPECT_THAT(
      file->Read(UINT64_MAX - 3, std::as_writable_bytes(std::span(out))),
      IsOk());
  EXPECT_EQ(out, std::string(8, '\0'));
  EXPECT_TRUE(file->Has(10, 0));
  EXPECT_FALSE(file->Has(10, 1));
  EXPECT_FALSE(file->Has(5, UINT64_MAX));
}

TEST(HostFile, ThatBecameShorterIsAnError) {
  TemporaryFolder folder;
  WriteContents(folder / "file", "0123456789");
  const auto file = Open(folder / "file");
  ASSERT_EQ(::truncate((folder / "file").c_str(), 5), 0);
  std::string out(8, 'x');
  EXPECT_THAT(file->Read(2, std::as_writable_bytes(std::span(out))),
              FailsWith(Reason::kIo, "at offset 5"));
}

}  // namespace
}  // namespace snapsync::qcow2
