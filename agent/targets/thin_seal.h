// SPDX-License-Identifier: Apache-2.0
//
// The seal of a thin volume: by which a later session proves that the volume is
// what a commit left, and that nobody wrote to it since. It names the volume
// and its snapshot of the generation, with their thin ids; the pool's metadata
// then tell whether the two hold the same.
//
// Used by one thread at a time.
#ifndef SNAPSYNC_AGENT_TARGETS_THIN_SEAL_H_
#define SNAPSYNC_AGENT_TARGETS_THIN_SEAL_H_

#include <string>

#include "absl/status/status.h"
#include "agent/targets/thin_volume.h"

namespace snapsync {

// Of the volume right after the commit; `generation` is the name of its
// snapshot.
std::string MakeThinSeal(const ThinVolume& target,
                         const std::string& generation);

// Activates the volume. kBaseMismatch when it is not, or no longer, what the
// seal says. `state_directory` is for the note on the metadata snapshot.
absl::Status CheckThinSeal(const ThinVolume& target, const std::string& seal,
                           const std::string& state_directory);

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_TARGETS_THIN_SEAL_H_
