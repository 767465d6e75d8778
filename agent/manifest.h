// SPDX-License-Identifier: Apache-2.0
//
// What a generation held when it was committed, as hashes, so that an agent can
// prove by itself that the disk still holds it: one hash for each cell of 64
// KiB.
//
//   STATE/targets/VOLUME.manifest, little-endian:
//
//   head     0 "SNPM" | 4 version u32 | 8 generation 16 bytes | 24 size u64
//            32 crc32c of bytes 0..31; the sectors begin at 4096
//   sector   63 cells of 8 bytes | 8 bytes of XXH3-128 over the sector's number
//            and its cells. All zero: 63 cells that read as zeroes
//   cell     the first 8 bytes of the XXH3-128 of its bytes (the last cell may
//   be
//            shorter), 0 if they are zeroes, 1 if they are not known
//
// A sector is written in place: a power cut leaves the old or the new one.
//
// It is a help, never a condition: where it can't be kept (no space, power cut
// before the hashes were flushed) it is removed, and the next scrub makes a new
// one from what it reads. It is never wrong: the head names the generation, and
// is changed, durably, before the first cell is (agent/manifest_log.h).
//
// Used by one thread at a time.
#ifndef SNAPSYNC_AGENT_MANIFEST_H_
#define SNAPSYNC_AGENT_MANIFEST_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/id128.h"
#include "common/base/units.h"
#include "common/block/host_folder.h"

namespace snapsync {

inline constexpr uint64_t kCellBytes = 64 * kKiB;

using CellHash = uint64_t;
inline constexpr CellHash kZeroCell = 0;
inline constexpr CellHash kUnknownCell = 1;

// Neither kUnknownCell nor, unless all bytes are zero, kZeroCell.
CellHash HashOfCell(std::span<const std::byte> data);

// Of a volume of `size` bytes.
constexpr uint64_t CellsOf(uint64_t size) {
  return (size + kCellBytes - 1) / kCellBytes;
}

class Manifest {
 public:
  struct Head {
    Id128 generation;
    uint64_t size = 0;  // bytes of the volume
    friend bool operator==(const Head&, const Head&) = default;
  };

  // A new one in place of what has the name: all cells are `fill`, kZeroCell or
  // kUnknownCell. Durable but for its name: a power cut may leave the one
  // before it, or none.
  static absl::StatusOr<std::unique_ptr<Manifest>> Create(
      HostFolder& folder, const std::string& name, const Head& head,
      CellHash fill);

  // nullptr when there is none. kVerification when it is damaged, or of a
  // version that is not known.
  static absl::StatusOr<std::unique_ptr<Manifest>> Open(
      HostFolder& folder, const std::string& name);

  const Head& head() const { return head_; }

  // Durable when it returns OK. Cells that a larger size adds are unknown.
  absl::Status SetHead(const Head& head);

  // Cells of a damaged sector are unknown, and counted.
  absl::Status Read(uint64_t first, std::span<CellHash> cells);
  uint64_t damaged_sectors() const { return damaged_sectors_; }

  // Not durable before Flush().
  absl::Status Write(uint64_t first, std::span<const CellHash> cells);
  absl::Status Fill(uint64_t first, uint64_t count, CellHash value);
  absl::Status Flush();

 private:
  Manifest(std::unique_ptr<GrowingFile> file, const Head& head)
      : file_(std::move(file)), head_(head) {}

  absl::Status WriteHead();
  absl::Status CheckRange(uint64_t first, uint64_t count) const;
  // Sets `count` cells to what `value` says of each (0: the first of them).
  absl::Status Change(uint64_t first, uint64_t count,
                      const std::function<CellHash(uint64_t index)>& value);

  const std::unique_ptr<GrowingFile> file_;
  Head head_;
  uint64_t damaged_sectors_ = 0;
};

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_MANIFEST_H_
