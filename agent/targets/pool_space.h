// SPDX-License-Identifier: Apache-2.0
//
// The room in a thin pool, and the reserve that a sync leaves to the other
// volumes on it. A pool that runs full fails or freezes the writes to all of
// them, and one without room for its metadata has to be repaired; a sync that
// stops before goes on as soon as the pool was enlarged.
//
// The reserve: 5 % of the pool, at most 1 GiB; of its metadata 5 %, at most
// 16 MiB. The kernel is asked before each write: asking is cheap (one ioctl,
// which commits nothing), and others write to the pool, too. What writes
// under way are about to take is not in its answer yet: that counts as taken,
// of all writers of this process to the pool.
//
// Thread-safe. kNoSpace: too little room. kTargetUnsuitable: a pool that takes
// no writes at all. The messages have the pool, the numbers, and what helps.
#ifndef SNAPSYNC_AGENT_TARGETS_POOL_SPACE_H_
#define SNAPSYNC_AGENT_TARGETS_POOL_SPACE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/block/block_device.h"
#include "common/thin/pool_status.h"

namespace snapsync {

class PoolSpace {
 public:
  using ReadStatus = std::function<absl::StatusOr<PoolStatus>()>;

  // `name` is GROUP/POOL; `uuid` tells it from all others. `read` is called by
  // several threads, for each write at least once.
  PoolSpace(ReadStatus read, uint64_t block_bytes, const std::string& name,
            const std::string& uuid);

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

  // Before a write that takes at most `bytes`, and, if that was OK, after it.
  // The former waits for writes under way where only their end tells whether
  // there is room.
  absl::Status BeginWrite(uint64_t bytes) const;
  void EndWrite(uint64_t bytes) const;

  uint64_t block_bytes() const { return block_bytes_; }

 private:
  struct UnderWay;

  static std::shared_ptr<UnderWay> UnderWayIn(const std::string& uuid);

  absl::Status CheckMode(const PoolStatus& status) const;
  absl::Status CheckFree(const PoolStatus& status, uint64_t new_bytes,
                         uint64_t mapped_bytes) const;

  ReadStatus read_;
  uint64_t block_bytes_;
  std::string name_;
  std::shared_ptr<UnderWay> under_way_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_TARGETS_POOL_SPACE_H_
