// SPDX-License-Identifier: Apache-2.0
//
// The journal of a target: how far its session is durable. A ring of fixed
// records in a preallocated file, each in a block of its own, so that a record
// torn by a power cut can only be the newest one, and the one before it is
// still whole.
//
// Record (little-endian, at slot × 4096; docs/formats.md):
//   0 magic "SNPJ" u32 | 4 version u32 | 8 sequence u64 | 16 session 16 bytes
//   32 watermark u64 (chunks) | 40 digest 32 bytes | 72 crc32c of bytes 0..71
//
// Invariant: a record is written only after the data it speaks of was flushed,
// and the sender hears of it only after the record was flushed.
//
// Used by one thread at a time.
#ifndef SNAPSYNC_AGENT_JOURNAL_H_
#define SNAPSYNC_AGENT_JOURNAL_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "common/base/digest.h"
#include "common/base/id128.h"
#include "common/block/block_device.h"

namespace snapsync {

struct JournalRecord {
  uint64_t watermark = 0;
  Digest256 digest{};
  friend bool operator==(const JournalRecord&, const JournalRecord&) = default;
};

class Journal {
 public:
  static constexpr uint64_t kSlotBytes = 4096;
  static constexpr uint64_t kSlots = 256;
  static constexpr uint64_t kBytes = kSlotBytes * kSlots;

  // Reads the journal in a file of kBytes. Records of other sessions than
  // `session` are left over from earlier ones and count for nothing. What is
  // found may have been read from a cache, or be what a failed flush left
  // there: it is written again, so last() is durable.
  static absl::StatusOr<std::unique_ptr<Journal>> Open(
      std::unique_ptr<BlockReader> reader, std::unique_ptr<BlockWriter> writer,
      const Id128& session);

  // The newest record of the session; watermark 0 if there is none.
  const JournalRecord& last() const { return last_; }

  // Makes `record` durable. After an error the journal must not be used again.
  absl::Status Append(const JournalRecord& record);

 private:
  Journal(std::unique_ptr<BlockReader> reader,
          std::unique_ptr<BlockWriter> writer, const Id128& session);
  absl::Status ReadAll();

  const std::unique_ptr<BlockReader> reader_;
  const std::unique_ptr<BlockWriter> writer_;
  const Id128 session_;
  JournalRecord last_;
  uint64_t next_sequence_ = 1;
};

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_JOURNAL_H_
