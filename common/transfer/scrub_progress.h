// SPDX-License-Identifier: Apache-2.0
//
// How far a scrub has come, and what it found (agent/scrub.h).
#ifndef SNAPSYNC_COMMON_TRANSFER_SCRUB_PROGRESS_H_
#define SNAPSYNC_COMMON_TRANSFER_SCRUB_PROGRESS_H_

#include <cstdint>
#include <vector>

#include "common/block/extent.h"
#include "common/transfer/session_protocol.h"

namespace snapsync {

struct ScrubProgress {
  Receipt generation;     // that was looked at last
  uint64_t size = 0;      // bytes of the volume
  uint64_t next = 0;      // where to go on; `size`: all is done
  uint64_t compared = 0;  // bytes
  uint64_t recorded = 0;  // bytes of which the manifest knew nothing
  // Parts of the manifest that were damaged: what they spoke of was recorded
  // anew, and could not be compared. The head counts as one.
  uint64_t damaged_manifest = 0;
  uint64_t damaged_bytes = 0;
  // What the last step found: it reads as something else than was written, or
  // not at all. In whole cells of the manifest.
  std::vector<Extent> damaged;
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_TRANSFER_SCRUB_PROGRESS_H_
