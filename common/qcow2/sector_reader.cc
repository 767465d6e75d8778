// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/sector_reader.h"

#include <string>
#include <utility>

#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "common/block/file_device.h"

namespace snapsync::qcow2 {
namespace {

constexpr size_t kMaxReadBytes = 2 * kMiB;

// Whether `next` goes on where `read` ends, in the file and in memory.
bool Joins(const ReadOperation& read, const ReadOperation& next) {
  return read.offset + read.data.size() == next.offset &&
         read.data.data() + read.data.size() == next.data.data() &&
         read.data.size() + next.data.size() <= kMaxReadBytes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SectorReader>> SectorReader::Make(
    std::vector<std::shared_ptr<const HostFile>> files) {
  std::vector<File> opened;
  for (std::shared_ptr<const HostFile>& host : files) {
    File& file = opened.emplace_back();
    SNAPSYNC_ASSIGN_OR_RETURN(
        file.direct,
        OpenFileReader("/proc/self/fd/" + std::to_string(host->fd()),
                       {.name = host->name(), .from_cache = true}));
    file.host = std::move(host);
  }
  return std::unique_ptr<SectorReader>(new SectorReader(std::move(opened)));
}

uint64_t SectorReader::SectorBytes(uint32_t file) const {
  return (files_[file].host->size() + kSectorBytes - 1) & ~(kSectorBytes - 1);
}

absl::Status SectorReader::Read(std::span<const Part> parts) {
  std::vector<std::vector<ReadOperation>> by_file(files_.size());
  for (const Part& part : parts) {
    std::vector<ReadOperation>& reads = by_file[part.file];
    if (!reads.empty() && Joins(reads.back(), part.read)) {
      std::span<std::byte>& data = reads.back().data;
      data = {data.data(), data.size() + part.read.data.size()};
    } else {
      reads.push_back(part.read);
    }
  }
  for (size_t file = 0; file < files_.size(); ++file) {
    SNAPSYNC_RETURN_IF_ERROR(ReadFrom(files_[file], by_file[file]));
  }
  return absl::OkStatus();
}

absl::Status SectorReader::ReadFrom(const File& file,
                                    std::span<const ReadOperation> operations) {
  const uint64_t whole = file.host->size() & ~(kSectorBytes - 1);
  std::vector<ReadOperation> direct;
  direct.reserve(operations.size());
  for (const ReadOperation& read : operations) {
    const uint64_t end = read.offset + read.data.size();
    if (file.host->IsCached(read.offset, read.data.size())) {
      SNAPSYNC_RETURN_IF_ERROR(file.host->Read(read.offset, read.data));
      continue;
    }
    if (end <= whole) {
      direct.push_back(read);
      continue;
    }
    // The last sector is not whole: no direct read ends there.
    const size_t before = read.offset < whole ? whole - read.offset : 0;
    if (before > 0) direct.push_back({read.offset, read.data.first(before)});
    SNAPSYNC_RETURN_IF_ERROR(
        file.host->Read(read.offset + before, read.data.subspan(before)));
  }
  if (direct.empty() || file.direct->Read(direct).ok()) {
    return absl::OkStatus();
  }
  // A disk may want whole blocks of 4 KiB, which smaller clusters are not.
  for (const ReadOperation& read : direct) {
    SNAPSYNC_RETURN_IF_ERROR(file.host->Read(read.offset, read.data));
  }
  return absl::OkStatus();
}

}  // namespace snapsync::qcow2
