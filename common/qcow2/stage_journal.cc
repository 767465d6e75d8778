// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/stage_journal.h"

#include <sys/file.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "common/base/crc32c.h"
#include "common/base/endian.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace snapsync::qcow2 {
namespace {

constexpr uint32_t kHeadMagic = 0x4A514E53;   // "SNQJ"
constexpr uint32_t kBlockMagic = 0x52514E53;  // "SNQR"
constexpr uint32_t kJournalVersion = 1;
constexpr size_t kHeadChecked = 72;
constexpr size_t kChecksumBytes = 4;
static_assert(StageJournal::kHeadBytes == kHeadChecked + kChecksumBytes);
constexpr size_t kBlockHeadBytes = 32;
constexpr size_t kRecordBytes = 24;
// In a block: bounds the memory of a reader.
constexpr size_t kBlockRecords = 64 << 10;

void StoreId(std::byte* to, const Id128& id) {
  std::memcpy(to, id.bytes.data(), id.bytes.size());
}
Id128 LoadId(const std::byte* from) {
  Id128 id;
  std::memcpy(id.bytes.data(), from, id.bytes.size());
  return id;
}

using HeadBytes = std::array<std::byte, StageJournal::kHeadBytes>;

HeadBytes EncodeHead(const StageHead& head) {
  HeadBytes bytes{};
  std::byte* to = bytes.data();
  StoreLittle(to, kHeadMagic);
  StoreLittle(to + 4, kJournalVersion);
  StoreId(to + 8, head.stage);
  StoreId(to + 24, head.base);
  StoreLittle(to + 40, head.size);
  StoreLittle(to + 48, head.base_clusters);
  StoreLittle(to + 56, head.base_bytes);
  StoreLittle(to + 64, head.geometry.cluster_bits);
  StoreLittle(to + 68, head.compression);
  StoreLittle(to + kHeadChecked, Crc32c({to, kHeadChecked}));
  return bytes;
}

// The kernel ends the lock when the file is closed, and when the process dies.
absl::Status Lock(const GrowingFile& file) {
  if (::flock(file.descriptor(), LOCK_EX | LOCK_NB) == 0) {
    return absl::OkStatus();
  }
  if (errno == EWOULDBLOCK) {
    return Error(Reason::kBusy, file.name() + " is written by another process");
  }
  return PosixError(errno, file.name() + " can't be locked");
}

// Of the bytes of a block without its checksum.
bool IsBlock(std::span<const std::byte> bytes, uint64_t sequence,
             const Id128& stage) {
  return LoadLittle<uint32_t>(bytes.data()) == kBlockMagic &&
         LoadLittle<uint64_t>(bytes.data() + 8) == sequence &&
         LoadId(bytes.data() + 16) == stage;
}

}  // namespace

StageJournal::StageJournal(std::unique_ptr<GrowingFile> file,
                           const StageHead& head)
    : file_(std::move(file)), head_(head), end_(kHeadBytes) {}

absl::StatusOr<std::unique_ptr<StageJournal>> StageJournal::Create(
    std::unique_ptr<GrowingFile> file, const StageHead& head) {
  SNAPSYNC_RETURN_IF_ERROR(Lock(*file));
  SNAPSYNC_RETURN_IF_ERROR(file->WriteCached(0, EncodeHead(head)));
  SNAPSYNC_RETURN_IF_ERROR(file->Flush());
  return std::unique_ptr<StageJournal>(new StageJournal(std::move(file), head));
}

absl::StatusOr<StageHead> StageJournal::ReadHead(GrowingFile& file) {
  const absl::Status none =
      Error(Reason::kBaseMismatch, file.name() + " is no journal of a stage");
  SNAPSYNC_ASSIGN_OR_RETURN(const uint64_t bytes, file.Size());
  if (bytes < kHeadBytes) return none;
  HeadBytes buffer{};
  SNAPSYNC_RETURN_IF_ERROR(file.ReadCached(0, buffer));
  const std::byte* from = buffer.data();
  StageHead head;
  head.stage = LoadId(from + 8);
  head.base = LoadId(from + 24);
  head.size = LoadLittle<uint64_t>(from + 40);
  head.base_clusters = LoadLittle<uint64_t>(from + 48);
  head.base_bytes = LoadLittle<uint64_t>(from + 56);
  head.geometry.cluster_bits = LoadLittle<uint32_t>(from + 64);
  head.compression = LoadLittle<uint32_t>(from + 68);
  if (EncodeHead(head) != buffer) return none;
  return head;
}

absl::StatusOr<std::vector<std::byte>> StageJournal::ReadBlock(
    uint64_t at, uint64_t sequence, uint64_t file_bytes) {
  const std::vector<std::byte> none;
  if (file_bytes - at < kBlockHeadBytes + kChecksumBytes) return none;
  std::vector<std::byte> bytes(kBlockHeadBytes);
  SNAPSYNC_RETURN_IF_ERROR(file_->ReadCached(at, bytes));
  const uint64_t count = LoadLittle<uint32_t>(bytes.data() + 4);
  const uint64_t checked = kBlockHeadBytes + count * kRecordBytes;
  if (!IsBlock(bytes, sequence, head_.stage) || count > kBlockRecords ||
      file_bytes - at < checked + kChecksumBytes) {
    return none;
  }
  bytes.resize(checked + kChecksumBytes);
  SNAPSYNC_RETURN_IF_ERROR(file_->ReadCached(at, bytes));
  if (LoadLittle<uint32_t>(bytes.data() + checked) !=
      Crc32c({bytes.data(), checked})) {
    return none;
  }
  return bytes;
}

absl::StatusOr<std::unique_ptr<StageJournal>> StageJournal::Open(
    std::unique_ptr<GrowingFile> file) {
  SNAPSYNC_RETURN_IF_ERROR(Lock(*file));
  SNAPSYNC_ASSIGN_OR_RETURN(const StageHead head, ReadHead(*file));
  SNAPSYNC_ASSIGN_OR_RETURN(const uint64_t file_bytes, file->Size());
  std::unique_ptr<StageJournal> journal(
      new StageJournal(std::move(file), head));
  SNAPSYNC_RETURN_IF_ERROR(journal->file_->WriteCached(0, EncodeHead(head)));
  for (;;) {
    SNAPSYNC_ASSIGN_OR_RETURN(
        const std::vector<std::byte> bytes,
        journal->ReadBlock(journal->end_, journal->blocks_, file_bytes));
    if (bytes.empty()) break;
    SNAPSYNC_RETURN_IF_ERROR(journal->file_->WriteCached(journal->end_, bytes));
    journal->end_ += bytes.size();
    ++journal->blocks_;
  }
  SNAPSYNC_RETURN_IF_ERROR(journal->file_->Resize(journal->end_));
  SNAPSYNC_RETURN_IF_ERROR(journal->file_->Flush());
  return journal;
}

absl::Status StageJournal::Replay(
    const std::function<absl::Status(const MapRecord&)>& visit) {
  uint64_t at = kHeadBytes;
  for (uint64_t block = 0; block < blocks_; ++block) {
    SNAPSYNC_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes,
                              ReadBlock(at, block, end_));
    if (bytes.empty()) {
      return Error(Reason::kIo, file_->name() + ": changed while it was read");
    }
    const std::byte* from = bytes.data() + kBlockHeadBytes;
    for (; from < bytes.data() + bytes.size() - kChecksumBytes;
         from += kRecordBytes) {
      SNAPSYNC_RETURN_IF_ERROR(
          visit({LoadLittle<uint64_t>(from), LoadLittle<uint64_t>(from + 8),
                 LoadLittle<uint64_t>(from + 16)}));
    }
    at += bytes.size();
  }
  return absl::OkStatus();
}

absl::Status StageJournal::Append(std::span<const MapRecord> records) {
  while (!records.empty()) {
    const auto block = records.first(std::min(records.size(), kBlockRecords));
    records = records.subspan(block.size());
    const size_t checked = kBlockHeadBytes + block.size() * kRecordBytes;
    std::vector<std::byte> bytes(checked + kChecksumBytes);
    StoreLittle(bytes.data(), kBlockMagic);
    StoreLittle(bytes.data() + 4, static_cast<uint32_t>(block.size()));
    StoreLittle(bytes.data() + 8, blocks_);
    StoreId(bytes.data() + 16, head_.stage);
    std::byte* to = bytes.data() + kBlockHeadBytes;
    for (const MapRecord& record : block) {
      StoreLittle(to, record.cluster);
      StoreLittle(to + 8, record.entry);
      StoreLittle(to + 16, record.count);
      to += kRecordBytes;
    }
    StoreLittle(bytes.data() + checked, Crc32c({bytes.data(), checked}));
    SNAPSYNC_RETURN_IF_ERROR(file_->WriteCached(end_, bytes));
    end_ += bytes.size();
    ++blocks_;
  }
  return file_->Flush();
}

}  // namespace snapsync::qcow2
