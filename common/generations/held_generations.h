// SPDX-License-Identifier: Apache-2.0
//
// Which states of a volume a host holds as snapshots, by name of generation:
// the common base of two sides is one that both hold.
//
// A snapshot says so itself, by an LVM tag
// "snapsync.generation=ID:MAPPED:SIZE", ID being 32 hex digits, MAPPED the
// bytes that had blocks when it was made, and SIZE the bytes of the generation:
// what the snapshot holds behind them is not part of it, since it went to, or
// came from, a smaller volume. A snapshot that holds what several generations
// are (a volume was brought back to it) has several. The tag is a claim; the
// guards of common/thin/guards.h prove, with the record made of it, that the
// snapshot was not written to since.
//
// Thread-safe: functions without state.
#ifndef SNAPSYNC_COMMON_GENERATIONS_HELD_GENERATIONS_H_
#define SNAPSYNC_COMMON_GENERATIONS_HELD_GENERATIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/id128.h"
#include "common/lvm/lvm.h"
#include "common/thin/base_record.h"
#include "common/thin/guarded_delta.h"

namespace snapsync {

struct HeldGeneration {
  Id128 generation;
  uint64_t mapped_bytes = 0;
  uint64_t size = 0;  // bytes, of the generation
  LogicalVolume snapshot;

  // The snapshot holds nothing that is not in the generation.
  bool whole() const { return size >= snapshot.size; }
};

std::string GenerationTag(const Id128& generation, uint64_t mapped_bytes,
                          uint64_t size);

// Of the pool with this UUID, the youngest snapshot first. Tags that can't be
// read are ignored.
std::vector<HeldGeneration> FindHeldGenerations(const VolumeGroup& group,
                                                const std::string& pool_uuid);

// Of `candidates`, the best first, the one that `held` (as found above) has the
// youngest snapshot of; of several of the same snapshot the best. nullopt: none
// of them.
std::optional<Id128> ChooseCommon(const std::vector<Id128>& candidates,
                                  const std::vector<HeldGeneration>& held);

// What the guards check. The pool's time and the time of creation are not
// known from LVM: those fields are 0, "not recorded".
BaseRecord RecordOf(const HeldGeneration& held, uint64_t chunk_size);

// What to ask for to have the delta from `base` to `snapshot`, with the facts
// that LVM knows. Requires: `snapshot` is a thin volume of `group`.
DeltaRequest RequestDelta(const VolumeGroup& group,
                          const LogicalVolume& snapshot,
                          const BaseRecord& base);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_GENERATIONS_HELD_GENERATIONS_H_
