// SPDX-License-Identifier: Apache-2.0
//
// The room in a thin pool, and the reserve that a sync leaves to the other
// volumes on it. A pool that runs full fails or freezes the writes to all of
// them, and one without room for its metadata has to be repaired; a sync that
// stops before goes on as soon as the pool was enlarged.
//
// The reserve: 5 % of the pool, at most 1 GiB; of its metadata 5 %, at most
// 16 MiB. The kernel is asked before each write: asking is cheap (one ioctl,
// which commits nothing), and others write to the pool, too.
//
// Thread-safe. kNoSpace: too little room. kTargetUnsuitable: a pool that takes
// no writes at all. The messages have the pool, the numbers, and what helps.
#ifndef SNAPSYNC_AGENT_TARGETS_POOL_SPACE_H_
#define SNAPSYNC_AGENT_TARGETS_POOL_SPACE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "common/block/block_device.h"
#include "common/thin/pool_control.h"

namespace snapsync {

class PoolSpace {
 public:
  // `name` is GROUP/POOL.
  PoolSpace(const PoolTarget& pool, const std::string& name);

  // The pool takes writes. A full one does not: kNoSpace.
  absl::Status CheckUsable() const;

  // The kernel writes the pool's metadata, as it does that of a full pool.
  // Where it does not it went back to what it had written last, and LVM, which
  // is not told, believes otherwise.
  absl::Status CheckMetadata() const;

  // There is room for `new_bytes` in whole blocks of the pool above the
  // reserves, and for their mappings in a device that has `mapped_bytes` and
  // shares them all with a snapshot.
  absl::Status CheckRoom(uint64_t new_bytes, uint64_t mapped_bytes) const;

  // Writes by `writer` as long as that leaves the reserves; what would not is
  // refused before it is begun.
  std::unique_ptr<BlockWriter> Watch(std::unique_ptr<BlockWriter> writer) const;

  uint64_t block_bytes() const { return block_bytes_; }

 private:
  absl::Status Check(const PoolStatus& status) const;

  PoolTarget pool_;
  std::string name_;
  uint64_t block_bytes_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_TARGETS_POOL_SPACE_H_
