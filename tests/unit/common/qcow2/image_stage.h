// SPDX-License-Identifier: Apache-2.0
//
// An image on its way, new or the next generation of one, and the disk that it
// should be. On a disk, past the page cache, only with clusters of 64 KiB and
// uncompressed; else in memory.
#ifndef SNAPSYNC_TESTS_UNIT_COMMON_QCOW2_IMAGE_STAGE_H_
#define SNAPSYNC_TESTS_UNIT_COMMON_QCOW2_IMAGE_STAGE_H_

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "common/base/aligned_buffer.h"
#include "common/base/unique_fd.h"
#include "common/qcow2/committed_image.h"
#include "common/qcow2/export_header.h"
#include "common/qcow2/image_update.h"
#include "common/qcow2/image_writer.h"
#include "common/qcow2/new_image.h"
#include "gtest/gtest.h"
#include "tests/testing/random.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync::qcow2 {

enum class Compression { kNone, kZlib, kZstd };

inline void WriteContentsAt(const std::string& path, uint64_t offset,
                            const std::string& data) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  ASSERT_EQ(
      ::pwrite(fd.get(), data.data(), data.size(), static_cast<off_t>(offset)),
      static_cast<ssize_t>(data.size()));
}

class ImageStage {
 public:
  ImageStage(uint64_t size, uint32_t cluster_bits, Compression compression)
      : temporary_(std::make_unique<TemporaryFolder>(
            cluster_bits == 16 && compression == Compression::kNone
                ? std::filesystem::temp_directory_path()
                : TemporaryFolder::InMemory())) {
    header_.geometry.cluster_bits = cluster_bits;
    header_.size = size;
    header_.incomplete = true;
    header_.compression_type = compression == Compression::kZstd
                                   ? kCompressionZstd
                                   : kCompressionDeflate;
    header_.identity.replication = "test";
    options_.geometry = header_.geometry;
    options_.compress = compression != Compression::kNone;
    options_.compression_type = header_.compression_type;
    options_.compression_threads = 2;
    folder_ = *OpenHostFolder(temporary_->path());
    auto file = folder_->Create("image");
    EXPECT_THAT(file, IsOk());
    EXPECT_THAT(BeginNewImage(**file, header_), IsOk());
    MakeJournal();
    // The largest image of a test has no bytes to compare with.
    if (size < (1 << 30)) expected_.resize(size);
    Open();
  }

  std::string path() const { return *temporary_ / "image"; }
  ImageWriter& writer() { return *writer_; }
  const std::vector<std::byte>& expected() const { return expected_; }

  // All of it, `step` bytes at a time, a part of it zeroes.
  void WriteInOrder(Random& random, uint64_t step) {
    for (uint64_t at = 0; at < header_.size; at += step) {
      const uint64_t length = std::min(step, header_.size - at);
      if (random.Percent(20)) {
        Zero({at, length});
      } else {
        Write({at, length}, random);
      }
    }
  }

  // A write or a zeroed range, of any sectors, small or large.
  void DoSomething(Random& random) {
    const uint64_t sectors = header_.size / 512;
    const uint64_t first = random.Below(sectors);
    const uint64_t most = random.Percent(50) ? 8 : 1500;
    const uint64_t count = random.Between(1, std::min(most, sectors - first));
    if (random.Percent(30)) {
      Zero({first * 512, count * 512});
    } else {
      Write({first * 512, count * 512}, random);
    }
  }

  void Write(Extent extent, Random& random) {
    WriteKind(extent, random, random.Below(3));
  }
  void WriteKind(Extent extent, Random& random, uint64_t kind) {
    AlignedBuffer buffer(extent.length);
    // Random, such as can be compressed, or zeroes.
    uint64_t word = random.Next();
    for (uint64_t i = 0; i < extent.length && kind < 2; i += sizeof word) {
      word = kind == 0 ? random.Next() : i % 488 == 0 ? ~word : word;
      std::memcpy(buffer.data() + i, &word, sizeof word);
    }
    const WriteOperation write{extent.offset, buffer.span()};
    EXPECT_THAT(writer_->Write({&write, 1}), IsOk());
    std::copy_n(buffer.data(), extent.length,
                expected_.begin() + static_cast<ptrdiff_t>(extent.offset));
  }

  void Zero(Extent extent) {
    EXPECT_THAT(writer_->Zero(extent), IsOk());
    std::fill_n(expected_.begin() + static_cast<ptrdiff_t>(extent.offset),
                extent.length, std::byte{0});
  }

  void Flush() { EXPECT_THAT(writer_->Flush(), IsOk()); }

  // A new image: from now on nothing is written before this place in the file.
  void SkipTo(uint64_t host_cluster) {
    base_end_ = host_cluster;
    Crash(expected_);
  }

  // The process is gone, and another one goes on: with `expected`.
  void Crash(const std::vector<std::byte>& expected) {
    writer_.reset();
    expected_ = expected;
    Open();
  }

  // The next generations take it that nothing in the file is free.
  void WriteAtEndOnly() { at_end_only_ = true; }

  // Begins the next generation, of `size` bytes, over the committed image.
  void BeginNext(uint64_t size) {
    header_.size = size;
    expected_.resize(size);
    file_bytes_ = std::filesystem::file_size(path());
    base_end_ = header_.geometry.ClustersOf(file_bytes_);
    updates_ = true;
    MakeJournal();
    Open();
  }

  // Gives the next generation up.
  void GiveUp() {
    writer_.reset();
    auto file = folder_->Open("image", HostFolder::Access::kWrite);
    EXPECT_THAT(GiveBackUnused(**file, file_bytes_), IsOk());
  }

  void Commit(uint64_t window_clusters = kWindowClusters) {
    writer_->Flush().IgnoreError();
    writer_.reset();
    Open();
    header_.identity.generation = Id128::Random();
    EXPECT_THAT(writer_->Finish([&](ClusterStore& store) {
      return updates_ ? FinishUpdate(store, image_, header_)
                      : FinishNewImage(store, header_, window_clusters);
    }),
                IsOk());
    writer_.reset();
  }

 private:
  void MakeJournal() {
    EXPECT_THAT(folder_->Remove("journal"), IsOk());
    auto file = folder_->Create("journal");
    EXPECT_THAT(file, IsOk());
    StageHead head;
    head.stage = Id128::Random();
    head.size = header_.size;
    head.geometry = header_.geometry;
    EXPECT_THAT(StageJournal::Create(*std::move(file), head), IsOk());
  }

  void Open() {
    auto file = folder_->Open("image", HostFolder::Access::kWrite);
    auto journal_file = folder_->Open("journal", HostFolder::Access::kWrite);
    auto journal = StageJournal::Open(*std::move(journal_file));
    ASSERT_THAT(journal, IsOk());
    auto base = ImageWriter::NewFile(header_.geometry, header_.size);
    base.end = base_end_;
    if (updates_) {
      auto image = ReadCommittedImage(**file, base_end_);
      ASSERT_THAT(image, IsOk());
      image_ = *std::move(image);
      auto begun = BeginUpdate(**file, image_, header_.size, base_end_);
      ASSERT_THAT(begun, IsOk());
      base = *std::move(begun);
      if (at_end_only_) base.free = ClusterSet();
    }
    auto writer = ImageWriter::Open(options_, header_.size, std::move(base),
                                    *std::move(file), *std::move(journal));
    ASSERT_THAT(writer, IsOk());
    writer_ = *std::move(writer);
  }

  std::unique_ptr<TemporaryFolder> temporary_;
  std::unique_ptr<HostFolder> folder_;
  ExportHeader header_;
  StoreOptions options_;
  uint64_t base_end_ = 1;
  bool updates_ = false;
  bool at_end_only_ = false;
  uint64_t file_bytes_ = 0;
  CommittedImage image_;
  std::vector<std::byte> expected_;
  std::unique_ptr<ImageWriter> writer_;
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_TESTS_UNIT_COMMON_QCOW2_IMAGE_STAGE_H_
