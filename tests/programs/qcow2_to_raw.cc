// SPDX-License-Identifier: Apache-2.0
//
// What an import does, without LVM: reads a QCOW2 image and writes what is in
// it to a raw file, which appears when all of it was read and is durable.
//
//   qcow2_to_raw [OPTIONS] IMAGE RAW
//
//   --local              parse in this process, without the confined child
//   --allow-anywhere     follow names out of the image's folder
//   --devices            read block devices, too
//   --allow-data-file    read an external data file
//   --ignore-locks       read what a running QEMU writes to
//   --allow-corrupt      read an image that is marked as corrupt
//   --backing-format=F   of a backing file whose format is not recorded
//
// Prints what failed on stderr and exits with the reason's number.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/aligned_buffer.h"
#include "common/base/error.h"
#include "common/base/read_ahead.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"
#include "common/base/units.h"
#include "common/block/file_device.h"
#include "common/block/zeroes.h"
#include "common/qcow2/confined_image.h"

namespace snapsync {
namespace {

constexpr size_t kReadBytes = 2 * kMiB;
constexpr size_t kReadsAtATime = 8;

struct CommandLine {
  qcow2::ImageOptions options;
  bool local = false;
  std::vector<std::string> paths;
};

absl::StatusOr<CommandLine> Parse(int argc, char** argv) {
  CommandLine line;
  constexpr std::string_view kFormat = "--backing-format=";
  for (int index = 1; index < argc; ++index) {
    const std::string_view word = argv[index];
    if (word == "--local") {
      line.local = true;
    } else if (word == "--allow-anywhere") {
      line.options.files.allow_anywhere = true;
    } else if (word == "--devices") {
      line.options.files.allow_devices = true;
    } else if (word == "--allow-data-file") {
      line.options.files.allow_data_file = true;
    } else if (word == "--ignore-locks") {
      line.options.files.ignore_locks = true;
    } else if (word == "--allow-corrupt") {
      line.options.chain.allow_corrupt = true;
    } else if (word.substr(0, kFormat.size()) == kFormat) {
      line.options.chain.unrecorded_backing_format =
          word.substr(kFormat.size());
    } else if (word.substr(0, 2) == "--") {
      return Error(Reason::kUsage, "no option " + std::string(word));
    } else {
      line.paths.emplace_back(word);
    }
  }
  if (line.paths.size() == 2) return line;
  return Error(Reason::kUsage, "two paths are needed: IMAGE RAW");
}

struct Batch {
  AlignedBuffer memory{kReadsAtATime * kReadBytes};
  std::vector<ReadOperation> reads;
};

// Cuts the extents into reads.
class Filler {
 public:
  Filler(qcow2::Image& image, const ExtentList& extents)
      : image_(image), extents_(extents.extents()) {}

  absl::StatusOr<bool> Fill(Batch& batch) {
    batch.reads.clear();
    while (batch.reads.size() < kReadsAtATime && index_ < extents_.size()) {
      const Extent& extent = extents_[index_];
      const uint64_t length =
          std::min<uint64_t>(kReadBytes, extent.length - done_);
      batch.reads.push_back({extent.offset + done_,
                             batch.memory.span().subspan(
                                 batch.reads.size() * kReadBytes, length)});
      done_ += length;
      if (done_ == extent.length) {
        ++index_;
        done_ = 0;
      }
    }
    if (batch.reads.empty()) return false;
    SNAPSYNC_RETURN_IF_ERROR(image_.Read(batch.reads));
    return true;
  }

 private:
  qcow2::Image& image_;
  const std::vector<Extent>& extents_;
  size_t index_ = 0;
  uint64_t done_ = 0;
};

absl::Status Copy(qcow2::Image& image, BlockWriter& out) {
  SNAPSYNC_ASSIGN_OR_RETURN(const ExtentList extents, image.DataExtents());
  Filler filler(image, extents);
  std::vector<std::unique_ptr<Batch>> batches(3);
  for (auto& batch : batches) batch = std::make_unique<Batch>();
  ReadAhead<Batch> ahead(
      std::move(batches), [&](Batch& batch) { return filler.Fill(batch); },
      true);
  for (;;) {
    SNAPSYNC_ASSIGN_OR_RETURN(Batch * batch, ahead.Next());
    if (batch == nullptr) break;
    std::vector<WriteOperation> writes;
    for (const ReadOperation& read : batch->reads) {
      if (!IsZero(read.data)) writes.push_back({read.offset, read.data});
    }
    SNAPSYNC_RETURN_IF_ERROR(out.Write(writes));
  }
  return out.Flush();
}

absl::Status WritePart(qcow2::Image& image, const std::string& part) {
  const UniqueFd made(::open(part.c_str(), O_CREAT | O_RDWR | O_TRUNC, 0600));
  if (!made.valid() ||
      ::ftruncate(made.get(), static_cast<off_t>(image.size())) != 0) {
    return PosixError(errno, part + ": can't be made");
  }
  SNAPSYNC_ASSIGN_OR_RETURN(const auto writer, OpenFileWriter(part, {}));
  return Copy(image, *writer);
}

absl::StatusOr<std::unique_ptr<qcow2::Image>> Open(const CommandLine& line) {
  if (!line.local) {
    return qcow2::OpenConfinedImage(line.paths[0], line.options);
  }
  return qcow2::OpenImage(line.paths[0], line.options);
}

absl::Status Run(const CommandLine& line) {
  SNAPSYNC_ASSIGN_OR_RETURN(const std::unique_ptr<qcow2::Image> image,
                            Open(line));
  const std::string part = line.paths[1] + ".part";
  absl::Status status = WritePart(*image, part);
  if (status.ok() && ::rename(part.c_str(), line.paths[1].c_str()) != 0) {
    status = PosixError(errno, line.paths[1] + ": can't be named");
  }
  if (!status.ok()) ::unlink(part.c_str());
  return status;
}

absl::Status Main(int argc, char** argv) {
  SNAPSYNC_ASSIGN_OR_RETURN(const CommandLine line, Parse(argc, argv));
  return Run(line);
}

}  // namespace
}  // namespace snapsync

int main(int argc, char** argv) {
  const absl::Status status = snapsync::Main(argc, argv);
  if (!status.ok()) std::cerr << snapsync::MessageOf(status) << "\n";
  return snapsync::ExitCode(status);
}
