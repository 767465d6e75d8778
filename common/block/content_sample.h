// SPDX-License-Identifier: Apache-2.0
//
// A look at a device's or file's contents that costs a few milliseconds
// whatever its size: the first and the last MiB, and 4 KiB at each of 64 places
// spread between them. Finds that a target was written to or replaced as a
// whole, not that a single block was.
//
// Thread-safe: a pure function of the contents.
#ifndef SNAPSYNC_COMMON_BLOCK_CONTENT_SAMPLE_H_
#define SNAPSYNC_COMMON_BLOCK_CONTENT_SAMPLE_H_

#include "absl/status/statusor.h"
#include "common/base/digest.h"
#include "common/block/block_device.h"

namespace snapsync {

struct ContentSample {
  // XXH3 over the size and what was read.
  Checksum128 fingerprint{};
  bool all_zero = true;
};

// Equal contents of equal size give an equal sample.
absl::StatusOr<ContentSample> SampleContent(BlockReader& reader);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BLOCK_CONTENT_SAMPLE_H_
