// SPDX-License-Identifier: Apache-2.0
#include "agent/journal.h"

#include <cstring>
#include <utility>

#include "common/base/aligned_buffer.h"
#include "common/base/crc32c.h"
#include "common/base/endian.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace snapsync {
namespace {

constexpr uint32_t kJournalMagic = 0x4A504E53;  // "SNPJ"
constexpr uint32_t kJournalVersion = 1;
constexpr size_t kChecked = 72;  // bytes before the checksum

}  // namespace

Journal::Journal(std::unique_ptr<BlockReader> reader,
                 std::unique_ptr<BlockWriter> writer, const Id128& session)
    : reader_(std::move(reader)),
      writer_(std::move(writer)),
      session_(session) {}

absl::StatusOr<std::unique_ptr<Journal>> Journal::Open(
    std::unique_ptr<BlockReader> reader, std::unique_ptr<BlockWriter> writer,
    const Id128& session) {
  if (reader->size() < kBytes) {
    return Error(Reason::kIo, reader->name() + ": the journal has " +
                                  std::to_string(reader->size()) +
                                  " bytes, expected " + std::to_string(kBytes));
  }
  std::unique_ptr<Journal> journal(
      new Journal(std::move(reader), std::move(writer), session));
  SNAPSYNC_RETURN_IF_ERROR(journal->ReadAll());
  if (journal->last_.watermark > 0) {
    SNAPSYNC_RETURN_IF_ERROR(journal->Append(journal->last_));
  }
  return journal;
}

absl::Status Journal::ReadAll() {
  AlignedBuffer buffer(kBytes);
  const ReadOperation read{0, buffer.span()};
  SNAPSYNC_RETURN_IF_ERROR(reader_->Read({&read, 1}));
  uint64_t newest = 0;
  for (uint64_t slot = 0; slot < kSlots; ++slot) {
    const std::byte* at = buffer.data() + slot * kSlotBytes;
    if (LoadLittle<uint32_t>(at) != kJournalMagic) continue;
    if (LoadLittle<uint32_t>(at + kChecked) != Crc32c({at, kChecked})) {
      continue;  // torn: it was never acknowledged
    }
    const auto version = LoadLittle<uint32_t>(at + 4);
    if (version != kJournalVersion) {
      return Error(Reason::kIo, reader_->name() + ": journal version " +
                                    std::to_string(version) +
                                    ", this agent knows " +
                                    std::to_string(kJournalVersion) +
                                    "; use the version that wrote it");
    }
    const auto sequence = LoadLittle<uint64_t>(at + 8);
    if (sequence >= next_sequence_) next_sequence_ = sequence + 1;
    Id128 session;
    std::memcpy(session.bytes.data(), at + 16, session.bytes.size());
    if (session != session_ || sequence < newest) continue;
    newest = sequence;
    last_.watermark = LoadLittle<uint64_t>(at + 32);
    std::memcpy(last_.digest.data(), at + 40, last_.digest.size());
  }
  return absl::OkStatus();
}

absl::Status Journal::Append(const JournalRecord& record) {
  AlignedBuffer slot(kSlotBytes);
  std::byte* at = slot.data();
  StoreLittle(at, kJournalMagic);
  StoreLittle(at + 4, kJournalVersion);
  StoreLittle(at + 8, next_sequence_);
  std::memcpy(at + 16, session_.bytes.data(), session_.bytes.size());
  StoreLittle(at + 32, record.watermark);
  std::memcpy(at + 40, record.digest.data(), record.digest.size());
  StoreLittle(at + kChecked, Crc32c({at, kChecked}));
  const WriteOperation write{next_sequence_ % kSlots * kSlotBytes, slot.span()};
  SNAPSYNC_RETURN_IF_ERROR(writer_->Write({&write, 1}));
  SNAPSYNC_RETURN_IF_ERROR(writer_->Flush());
  ++next_sequence_;
  last_ = record;
  return absl::OkStatus();
}

}  // namespace snapsync
