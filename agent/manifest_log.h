// SPDX-License-Identifier: Apache-2.0
//
// What the chunks of a session change in the manifest, gathered while they are
// written, and applied when the session is committed.
//
//   STATE/targets/VOLUME.manifest-log, little-endian:
//
//   head     0 "SNPL" | 4 version u32 | 8 session 16 bytes | 24 crc32c of 0..23
//   record   0 "SNPR" | 4 bytes of the body u32 | 8 first chunk u64 | 16 end
//   u64
//            24 crc32c of the body | 28 crc32c of 0..27 | the body
//   body     runs: 0 first cell u64 | 8 count u32 | 12 kind u32 | for kind 2
//   the
//            hashes; kind 0: zeroes, 1: unknown
//
// It is flushed once, with the last chunk. Whether it is whole is seen when it
// is applied: its records have to tell of all chunks. When they do not (a power
// cut, no space) the manifest goes, not the sync.
#ifndef SNAPSYNC_AGENT_MANIFEST_LOG_H_
#define SNAPSYNC_AGENT_MANIFEST_LOG_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/manifest.h"
#include "agent/target_record.h"
#include "common/base/id128.h"
#include "common/block/extent.h"
#include "common/block/host_folder.h"

namespace snapsync {

// Cells as the pieces of chunks leave them. What a piece covers in part is not
// known. Used by one thread at a time.
class CellChanges {
 public:
  // Of a volume of `size` bytes.
  explicit CellChanges(uint64_t size) : size_(size) {}

  void AddData(uint64_t offset, std::span<const std::byte> data);
  void AddZeroes(Extent extent);

  // The body of a record.
  std::vector<std::byte> Encode() const;

 private:
  enum class Kind : uint32_t { kZeroes = 0, kUnknown = 1, kHashes = 2 };
  struct Run {
    uint64_t first = 0;
    uint32_t count = 0;
    Kind kind = Kind::kZeroes;
  };
  friend class ManifestLog;

  // Calls `whole` with the run of cells that `extent` covers; what it touches
  // besides is unknown.
  template <typename Whole>
  void Split(Extent extent, const Whole& whole);
  void Append(uint64_t first, uint64_t count, Kind kind);

  const uint64_t size_;
  std::vector<Run> runs_;
  std::vector<CellHash> hashes_;  // of the runs of hashes, in their order
};

// Used by one thread at a time.
class ManifestLog {
 public:
  // Of session `session`, which is durable up to chunk `watermark`: goes on
  // with what is there of it, or begins anew.
  static absl::StatusOr<std::unique_ptr<ManifestLog>> Open(
      HostFolder& folder, const std::string& name, const Id128& session,
      uint64_t watermark);

  // What the chunks from `first` to `end` changed.
  absl::Status Append(uint64_t first, uint64_t end, const CellChanges& changes);
  absl::Status Flush();

  // Changes the cells of `manifest`. False, and nothing changed, when the log
  // is not whole: of another session, or not of all `chunk_count` chunks.
  static absl::StatusOr<bool> Apply(HostFolder& folder, const std::string& name,
                                    const Id128& session, uint64_t chunk_count,
                                    Manifest& manifest);

 private:
  explicit ManifestLog(std::unique_ptr<GrowingFile> file)
      : file_(std::move(file)) {}

  static absl::Status ApplyBody(std::span<const std::byte> body,
                                Manifest& manifest);

  const std::unique_ptr<GrowingFile> file_;
  uint64_t end_ = 0;  // bytes that are used
};

// Makes the manifest that of the generation that `session` brought, by its log,
// durably. False: there can be none of it, and what has the name is to be
// removed. After a crash at any moment it may be called again.
absl::StatusOr<bool> UpdateManifest(HostFolder& folder,
                                    const std::string& manifest_name,
                                    const std::string& log_name,
                                    const SessionRecord& session);

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_MANIFEST_LOG_H_
