// SPDX-License-Identifier: Apache-2.0
//
// What a stage has written so far: which guest cluster is in which host cluster
// since the last Flush() of its writer. A file beside the image, to which each
// flush appends after the data themselves are durable; so after a crash the
// longest valid prefix names nothing but what is there.
//
// The file, little-endian:
//
//   head     0 "SNQJ" | 4 version u32 | 8 stage 16 bytes | 24 base generation
//   16
//            40 size u64 | 48 base_clusters u64 | 56 base_bytes u64
//            64 cluster_bits u32 | 68 compression u32 | 72 crc32c of 0..71
//   block    0 "SNQR" | 4 count u32 | 8 sequence u64 | 16 stage 16 bytes
//            32 count records of 24 bytes | crc32c of all before it in the
//            block
//   record   0 cluster u64 | 8 L2 entry u64 | 16 count u64
//
// As long as one is open, no other process opens it (kBusy).
//
// Used by one thread at a time. After a failed Append() it must not be used
// again.
#ifndef SNAPSYNC_COMMON_QCOW2_STAGE_JOURNAL_H_
#define SNAPSYNC_COMMON_QCOW2_STAGE_JOURNAL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/id128.h"
#include "common/block/host_folder.h"
#include "common/qcow2/geometry.h"

namespace snapsync::qcow2 {

// `count` clusters from `cluster` on. Host clusters follow each other, too;
// other entries are the same for all (and one with a compressed entry is
// alone).
struct MapRecord {
  uint64_t cluster = 0;
  uint64_t entry = 0;
  uint64_t count = 0;
  friend bool operator==(const MapRecord&, const MapRecord&) = default;
};

struct StageHead {
  Id128 stage;
  Id128 base;  // the generation that the image holds; none: it is a new file
  uint64_t size = 0;           // bytes, virtual, after the commit
  uint64_t base_clusters = 1;  // host clusters of the committed image
  uint64_t base_bytes = 0;     // of the file, before the stage
  Geometry geometry;
  uint32_t compression = 0;  // the stage's choice, for the caller
  friend bool operator==(const StageHead&, const StageHead&) = default;
};

class StageJournal {
 public:
  static constexpr size_t kHeadBytes = 76;

  // Writes the head into a new file, and makes it durable (not its name).
  static absl::StatusOr<std::unique_ptr<StageJournal>> Create(
      std::unique_ptr<GrowingFile> file, const StageHead& head);

  // Takes the longest valid prefix. It may have come from a cache, or be what a
  // failed flush left: it is written again, so that it is durable.
  // kBaseMismatch when there is no valid head.
  static absl::StatusOr<std::unique_ptr<StageJournal>> Open(
      std::unique_ptr<GrowingFile> file);

  // Looks at the head, and writes nothing.
  static absl::StatusOr<StageHead> ReadHead(GrowingFile& file);

  const StageHead& head() const { return head_; }

  // All records in their order.
  absl::Status Replay(
      const std::function<absl::Status(const MapRecord&)>& visit);

  // Makes `records` durable. Requires: the data that they speak of are.
  absl::Status Append(std::span<const MapRecord> records);

 private:
  StageJournal(std::unique_ptr<GrowingFile> file, const StageHead& head);

  // The block at `end_`: its bytes, empty when there is no valid one.
  absl::StatusOr<std::vector<std::byte>> ReadBlock(uint64_t at,
                                                   uint64_t sequence,
                                                   uint64_t file_bytes);

  const std::unique_ptr<GrowingFile> file_;
  const StageHead head_;
  uint64_t end_;  // of the valid prefix, bytes
  uint64_t blocks_ = 0;
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_STAGE_JOURNAL_H_
