// SPDX-License-Identifier: Apache-2.0
//
// `snapsync-send delta`: prints what differs between two thin devices of a
// pool, for operators and for tests.
#ifndef SNAPSYNC_SENDER_DELTA_COMMAND_H_
#define SNAPSYNC_SENDER_DELTA_COMMAND_H_

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>

#include "absl/status/status.h"

namespace snapsync {

struct DeltaOptions {
  std::string meta;                 // metadata device or file
  std::optional<uint32_t> base_id;  // nullopt: "none", all that is mapped
  uint32_t id = 0;
  std::optional<uint64_t> size;  // bytes; nullopt: no clipping
  // Bytes; when it is less than `size`, all from where the base ends on is
  // changed or gone. nullopt: as large as the other.
  std::optional<uint64_t> base_size;
  bool metadata_snapshot = false;  // a file's held root, not its live state
  bool json = false;
  // Where the note on a metadata snapshot of a live pool is kept.
  std::string state_directory;
};

// The result goes to `out`, warnings to `warnings`: a guard that a sync would
// refuse for (docs/delta.md) does not make the difference of the two trees any
// less the answer to the question that was asked. Nothing is written to `out`
// on an error: kUsage for an unknown id, kIo for a missing file or damage,
// kBaseMismatch for a pool that must be repaired first.
absl::Status RunDelta(const DeltaOptions& options, std::ostream& out,
                      std::ostream& warnings);

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_DELTA_COMMAND_H_
