// SPDX-License-Identifier: Apache-2.0
//
// The simulated source: a volume that changes, its snapshots, and the plans by
// which they are sent. Plans are not the smallest possible: as a real delta
// does, they go by blocks, and tell of blocks that did not change.
//
// Used by one thread at a time.
#ifndef SNAPSYNC_TESTS_SIMULATION_SOURCE_H_
#define SNAPSYNC_TESTS_SIMULATION_SOURCE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "sender/hash_delta.h"
#include "tests/simulation/oracle.h"
#include "tests/testing/random.h"
#include "tests/testing/sparse_image.h"

namespace snapsync::simulation {

class Source {
 public:
  Source(Random* random, SectorPool* pool);

  uint64_t size() const { return size_; }
  // The number of a new sector's contents.
  uint64_t NewSector();
  // A sector where the volume is written to.
  uint64_t SomeSector();

  // Writes and discards.
  void Change();
  // A snapshot, and the plan from `base`, or from a volume that is blank (or,
  // with `covers_all`, holds anything).
  const Generation* Snapshot(const Generation* base, bool covers_all);
  // A snapshot, and the plan that `compare` makes of it; null when it fails.
  const Generation* SnapshotCompared(
      const std::function<absl::StatusOr<HashDelta>(BlockReader& snapshot)>&
          compare);
  // Null when there is none.
  const Generation* Find(const Id128& id) const;

 private:
  Extent BlockOf(uint64_t sector) const;
  std::unique_ptr<Plan> MakePlan(const SparseImage* base, bool covers_all);

  Random* const random_;
  SectorPool* const pool_;
  uint64_t size_;
  uint64_t block_;                // bytes
  std::vector<uint64_t> places_;  // sectors around which there is something
  uint64_t run_grains_ = 0;       // a long run of data, in grains (chunk.h)
  uint64_t run_start_ = 0;
  SparseImage image_;
  std::vector<std::unique_ptr<Generation>> generations_;
};

}  // namespace snapsync::simulation

#endif  // SNAPSYNC_TESTS_SIMULATION_SOURCE_H_
