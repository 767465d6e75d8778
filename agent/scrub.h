// SPDX-License-Identifier: Apache-2.0
//
// Whether a disk still holds the newest generation: read, and compared with the
// manifest that was kept when it was written (agent/manifest.h). What the
// manifest does not know is recorded, for the next time.
//
// It goes on in steps, between which sessions are opened and committed: a scrub
// of many hours continues in the generation that is the newest by then.
#ifndef SNAPSYNC_AGENT_SCRUB_H_
#define SNAPSYNC_AGENT_SCRUB_H_

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/manifest.h"
#include "common/block/block_device.h"
#include "common/transfer/scrub_progress.h"

namespace snapsync {

class Replica;

struct ScrubOptions {
  uint64_t from = 0;              // bytes
  uint64_t bytes_per_second = 0;  // 0: as fast as it goes
  bool renew = false;             // forget the manifest, and record all anew
  // Between two looks at what else the volume is wanted for.
  uint64_t step_bytes = 64 * kMiB;
  std::function<bool()> cancelled = [] { return false; };
};

// Compares the cells from `first` to `end` and adds what it finds to
// `progress`. An error: the manifest can't be read or written. Cells that can't
// be read are damaged.
absl::Status ScrubCells(BlockReader& reader, Manifest& manifest, uint64_t first,
                        uint64_t end, ScrubProgress& progress);

// The whole volume, from options.from on. `report` is called after each step;
// an error that it returns ends the scrub. kConnection when it was cancelled.
absl::StatusOr<ScrubProgress> RunScrub(
    Replica& replica, const ScrubOptions& options,
    const std::function<absl::Status(const ScrubProgress&)>& report);

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_SCRUB_H_
