// SPDX-License-Identifier: Apache-2.0
#include "agent/manifest_log.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>

#include "common/base/crc32c.h"
#include "common/base/endian.h"
#include "common/base/status_macros.h"

namespace snapsync {
namespace {

constexpr uint32_t kHeadMagic = 0x4C504E53;    // "SNPL"
constexpr uint32_t kRecordMagic = 0x52504E53;  // "SNPR"
constexpr uint32_t kLogVersion = 1;
constexpr size_t kLogHeadChecked = 24;
constexpr size_t kLogHeadBytes = kLogHeadChecked + sizeof(uint32_t);
constexpr size_t kRecordChecked = 28;
constexpr size_t kRecordBytes = kRecordChecked + sizeof(uint32_t);
constexpr size_t kRunBytes = 16;

std::array<std::byte, kLogHeadBytes> HeadOf(const Id128& session) {
  std::array<std::byte, kLogHeadBytes> head{};
  StoreLittle(head.data(), kHeadMagic);
  StoreLittle(head.data() + 4, kLogVersion);
  std::memcpy(head.data() + 8, session.bytes.data(), session.bytes.size());
  StoreLittle(head.data() + kLogHeadChecked,
              Crc32c(std::span(head).first(kLogHeadChecked)));
  return head;
}

struct Record {
  uint64_t first = 0;  // chunks
  uint64_t end = 0;
  std::vector<std::byte> body;
  uint64_t bytes() const { return kRecordBytes + body.size(); }
};

// Reads record after record, as long as they are whole and tell of all chunks
// up to some number.
class Reader {
 public:
  // False: it is not of this session.
  absl::StatusOr<bool> Begin(GrowingFile& file, const Id128& session) {
    file_ = &file;
    SNAPSYNC_ASSIGN_OR_RETURN(size_, file.Size());
    if (size_ < kLogHeadBytes) return false;
    std::array<std::byte, kLogHeadBytes> head;
    SNAPSYNC_RETURN_IF_ERROR(file.ReadCached(0, head));
    at_ = kLogHeadBytes;
    return head == HeadOf(session);
  }

  // False: the end, of the file or of what is whole.
  absl::StatusOr<bool> Next(Record& record) {
    std::array<std::byte, kRecordBytes> head;
    if (size_ - at_ < head.size()) return false;
    SNAPSYNC_RETURN_IF_ERROR(file_->ReadCached(at_, head));
    const auto bytes = LoadLittle<uint32_t>(head.data() + 4);
    record.first = LoadLittle<uint64_t>(head.data() + 8);
    record.end = LoadLittle<uint64_t>(head.data() + 16);
    if (LoadLittle<uint32_t>(head.data()) != kRecordMagic ||
        LoadLittle<uint32_t>(head.data() + kRecordChecked) !=
            Crc32c(std::span(head).first(kRecordChecked)) ||
        bytes > size_ - at_ - head.size() || record.first > covered_) {
      return false;
    }
    record.body.resize(bytes);
    SNAPSYNC_RETURN_IF_ERROR(file_->ReadCached(at_ + head.size(), record.body));
    if (LoadLittle<uint32_t>(head.data() + 24) != Crc32c(record.body)) {
      return false;
    }
    at_ += record.bytes();
    covered_ = std::max(covered_, record.end);
    return true;
  }

  uint64_t covered() const { return covered_; }  // chunks
  uint64_t at() const { return at_; }            // bytes

 private:
  GrowingFile* file_ = nullptr;
  uint64_t size_ = 0;
  uint64_t at_ = 0;
  uint64_t covered_ = 0;
};

}  // namespace

// Checked by its checksum: what is there was written by Encode().
absl::Status ManifestLog::ApplyBody(std::span<const std::byte> body,
                                    Manifest& manifest) {
  using Kind = CellChanges::Kind;
  std::vector<CellHash> hashes;
  while (body.size() >= kRunBytes) {
    const auto first = LoadLittle<uint64_t>(body.data());
    const auto count = LoadLittle<uint32_t>(body.data() + 8);
    const auto kind = LoadLittle<Kind>(body.data() + 12);
    body = body.subspan(kRunBytes);
    if (kind == Kind::kHashes) {
      hashes.resize(std::min<size_t>(count, body.size() / sizeof(CellHash)));
      const auto bytes = std::as_writable_bytes(std::span(hashes));
      std::copy_n(body.begin(), bytes.size(), bytes.begin());
      body = body.subspan(bytes.size());
      SNAPSYNC_RETURN_IF_ERROR(manifest.Write(first, hashes));
    } else {
      SNAPSYNC_RETURN_IF_ERROR(manifest.Fill(
          first, count, kind == Kind::kZeroes ? kZeroCell : kUnknownCell));
    }
  }
  return absl::OkStatus();
}

void CellChanges::Append(uint64_t first, uint64_t count, Kind kind) {
  if (!runs_.empty() && runs_.back().kind == kind &&
      runs_.back().first + runs_.back().count == first) {
    runs_.back().count += static_cast<uint32_t>(count);
  } else {
    runs_.push_back({first, static_cast<uint32_t>(count), kind});
  }
}

template <typename Whole>
void CellChanges::Split(Extent extent, const Whole& whole) {
  const uint64_t begin = extent.offset / kCellBytes;
  const uint64_t first = CellsOf(extent.offset);
  const uint64_t last =
      extent.end() == size_ ? CellsOf(size_) : extent.end() / kCellBytes;
  const uint64_t end = CellsOf(extent.end());
  if (begin < first) Append(begin, 1, Kind::kUnknown);
  if (first < last) whole(first, last - first);
  if (last < end && last >= first) Append(last, 1, Kind::kUnknown);
}

void CellChanges::AddData(uint64_t offset, std::span<const std::byte> data) {
  Split({offset, data.size()}, [&](uint64_t first, uint64_t count) {
    for (uint64_t cell = first; cell < first + count; ++cell) {
      const uint64_t inside = cell * kCellBytes - offset;
      hashes_.push_back(HashOfCell(data.subspan(
          inside, std::min<uint64_t>(kCellBytes, data.size() - inside))));
    }
    Append(first, count, Kind::kHashes);
  });
}

void CellChanges::AddZeroes(Extent extent) {
  Split(extent, [&](uint64_t first, uint64_t count) {
    Append(first, count, Kind::kZeroes);
  });
}

std::vector<std::byte> CellChanges::Encode() const {
  std::vector<std::byte> body(runs_.size() * kRunBytes +
                              hashes_.size() * sizeof(CellHash));
  std::byte* at = body.data();
  const CellHash* hash = hashes_.data();
  for (const Run& run : runs_) {
    StoreLittle(at, run.first);
    StoreLittle(at + 8, run.count);
    StoreLittle(at + 12, run.kind);
    at += kRunBytes;
    if (run.kind != Kind::kHashes) continue;
    std::memcpy(at, hash, run.count * sizeof(CellHash));
    at += run.count * sizeof(CellHash);
    hash += run.count;
  }
  return body;
}

absl::StatusOr<std::unique_ptr<ManifestLog>> ManifestLog::Open(
    HostFolder& folder, const std::string& name, const Id128& session,
    uint64_t watermark) {
  SNAPSYNC_ASSIGN_OR_RETURN(std::unique_ptr<GrowingFile> file,
                            folder.Open(name, HostFolder::Access::kWrite));
  if (file != nullptr && watermark > 0) {
    Reader reader;
    SNAPSYNC_ASSIGN_OR_RETURN(bool more, reader.Begin(*file, session));
    Record record;
    while (more) {
      SNAPSYNC_ASSIGN_OR_RETURN(more, reader.Next(record));
    }
    if (reader.covered() >= watermark) {
      std::unique_ptr<ManifestLog> log(new ManifestLog(std::move(file)));
      log->end_ = reader.at();
      return log;
    }
    // What is lost is lost: this log will never be whole.
  }
  if (file == nullptr) {
    SNAPSYNC_ASSIGN_OR_RETURN(file, folder.Create(name));
  }
  SNAPSYNC_RETURN_IF_ERROR(file->Resize(0));
  SNAPSYNC_RETURN_IF_ERROR(file->WriteCached(0, HeadOf(session)));
  std::unique_ptr<ManifestLog> log(new ManifestLog(std::move(file)));
  log->end_ = kLogHeadBytes;
  return log;
}

absl::Status ManifestLog::Append(uint64_t first, uint64_t end,
                                 const CellChanges& changes) {
  const std::vector<std::byte> body = changes.Encode();
  std::vector<std::byte> record(kRecordBytes + body.size());
  std::byte* const head = record.data();
  StoreLittle(head, kRecordMagic);
  StoreLittle(head + 4, static_cast<uint32_t>(body.size()));
  StoreLittle(head + 8, first);
  StoreLittle(head + 16, end);
  StoreLittle(head + 24, Crc32c(body));
  StoreLittle(head + kRecordChecked, Crc32c({head, kRecordChecked}));
  std::copy(body.begin(), body.end(), record.begin() + kRecordBytes);
  SNAPSYNC_RETURN_IF_ERROR(file_->WriteCached(end_, record));
  end_ += record.size();
  return absl::OkStatus();
}

absl::Status ManifestLog::Flush() { return file_->Flush(); }

absl::StatusOr<bool> ManifestLog::Apply(HostFolder& folder,
                                        const std::string& name,
                                        const Id128& session,
                                        uint64_t chunk_count,
                                        Manifest& manifest) {
  SNAPSYNC_ASSIGN_OR_RETURN(const std::unique_ptr<GrowingFile> file,
                            folder.Open(name, HostFolder::Access::kRead));
  if (file == nullptr) return false;
  // First whether it is whole, then what it says.
  for (const bool apply : {false, true}) {
    Reader reader;
    SNAPSYNC_ASSIGN_OR_RETURN(bool more, reader.Begin(*file, session));
    if (!more) return false;
    Record record;
    for (;;) {
      SNAPSYNC_ASSIGN_OR_RETURN(more, reader.Next(record));
      if (!more) break;
      if (apply) SNAPSYNC_RETURN_IF_ERROR(ApplyBody(record.body, manifest));
    }
    if (reader.covered() != chunk_count) return false;
  }
  return true;
}

absl::StatusOr<bool> UpdateManifest(HostFolder& folder,
                                    const std::string& manifest_name,
                                    const std::string& log_name,
                                    const SessionRecord& session) {
  const Manifest::Head head{session.generation, session.source_size};
  std::unique_ptr<Manifest> manifest;
  if (session.base.none()) {
    // All that the plan does not name reads as zeroes.
    SNAPSYNC_ASSIGN_OR_RETURN(
        manifest, Manifest::Create(folder, manifest_name, head, kZeroCell));
  } else {
    SNAPSYNC_ASSIGN_OR_RETURN(manifest, Manifest::Open(folder, manifest_name));
    if (manifest == nullptr) return false;
    const Id128& known = manifest->head().generation;
    // After a crash it may be on the way already.
    if (known != session.base && known != session.generation) return false;
    // Before the first cell: half of it must not pass for the base's.
    SNAPSYNC_RETURN_IF_ERROR(manifest->SetHead(head));
  }
  SNAPSYNC_ASSIGN_OR_RETURN(const bool applied,
                            ManifestLog::Apply(folder, log_name, session.id,
                                               session.chunk_count, *manifest));
  if (applied) SNAPSYNC_RETURN_IF_ERROR(manifest->Flush());
  return applied;
}

}  // namespace snapsync
