// SPDX-License-Identifier: Apache-2.0
//
// A disk with a volatile cache. What was written is seen at once, and durable
// after a flush. A power cut keeps of the rest any subset of sectors: a write
// may be torn between two sectors, not within one, and an older of two writes
// to a sector may be the one that stays. A failed write does a part of itself.
// After a failed flush some of what was not durable never will be, although it
// can still be read (as Linux does: the error is told once, and the pages are
// called clean).
//
// Used by one thread at a time.
#ifndef SNAPSYNC_TESTS_SIMULATION_DISK_H_
#define SNAPSYNC_TESTS_SIMULATION_DISK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/block/block_device.h"
#include "tests/simulation/machine.h"
#include "tests/testing/sparse_image.h"

namespace snapsync::simulation {

class Disk {
 public:
  Disk(std::string name, uint64_t size, Machine* machine, SectorPool* pool)
      : name_(std::move(name)), size_(size), machine_(machine), pool_(pool) {}

  const std::string& name() const { return name_; }
  uint64_t size() const { return size_; }
  // What a reader sees, and what would be left if all caches were lost.
  const SparseImage& seen() const { return seen_; }
  const SparseImage& durable() const { return durable_; }
  const SectorPool& pool() const { return *pool_; }
  // Grows with each change of what is seen.
  uint64_t changes() const { return changes_; }

  // Everything, durably.
  void Replace(const SparseImage& image);
  // Durable at once: somebody who is not the agent.
  void WriteAsStranger(uint64_t sector, uint64_t number);

  void Write(uint64_t sector, std::span<const std::byte> bytes);
  void Zero(Extent extent);
  void Flush();
  void FailFlush();
  void LosePower();

 private:
  struct Change {
    Extent zeroed;  // if not empty; else one sector
    uint64_t sector = 0;
    uint64_t number = 0;
  };
  static void Apply(const Change& change, SparseImage& image);

  const std::string name_;
  const uint64_t size_;
  Machine* const machine_;
  SectorPool* const pool_;
  SparseImage seen_;
  SparseImage durable_;
  std::vector<Change> cached_;
  uint64_t changes_ = 0;
};

// What a writer does with the flush that was asked of it.
enum class FlushWay { kHonest, kNothing, kTriedAgain };

// A port to a disk, of the boot in which it is made. It shares the disk: a
// descriptor that is still open stays with the device, whatever its name is
// by then.
std::unique_ptr<BlockReader> OpenDiskReader(std::shared_ptr<Disk> disk,
                                            Machine* machine);
// `after_flush`, if given, is called after each flush.
std::unique_ptr<BlockWriter> OpenDiskWriter(
    std::shared_ptr<Disk> disk, Machine* machine,
    FlushWay way = FlushWay::kHonest,
    std::function<void()> after_flush = nullptr);

}  // namespace snapsync::simulation

#endif  // SNAPSYNC_TESTS_SIMULATION_DISK_H_
