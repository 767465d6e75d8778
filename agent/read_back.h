// SPDX-License-Identifier: Apache-2.0
//
// Whether what was written is what was sent: read again from the device, past
// all caches, and compared by the checksums that the sender made.
//
// Data are read whole. Of what was zeroed the ends are: a discarded terabyte
// would take minutes to read, and what discards wrongly does it from the edge
// on.
#ifndef SNAPSYNC_AGENT_READ_BACK_H_
#define SNAPSYNC_AGENT_READ_BACK_H_

#include <vector>

#include "absl/status/status.h"
#include "common/block/block_device.h"
#include "common/transfer/chunk.h"

namespace snapsync {

// `chunks` as they were written and flushed; their `data` are used for it.
// kVerification with the offset when something else is there. Thread-safe for
// different chunks.
absl::Status ReadBack(BlockWriter& writer, std::vector<Chunk>& chunks);

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_READ_BACK_H_
