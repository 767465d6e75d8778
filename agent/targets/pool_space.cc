// SPDX-License-Identifier: Apache-2.0
#include "agent/targets/pool_space.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/mutex.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"

namespace snapsync {
namespace {

constexpr uint64_t kMetadataBlockBytes = 4 * kKiB;
constexpr uint64_t kReserveBytes = kGiB;
constexpr uint64_t kReserveMetadataBlocks = 16 * kMiB / kMetadataBlockBytes;
constexpr uint64_t kReservePercent = 5;
// Mappings in a leaf of the B-tree that is half full, as splitting leaves them.
constexpr uint64_t kMappingsPerLeaf = 126;
// Inner nodes, space maps, and what a commit needs for itself.
constexpr uint64_t kMetadataOverhead = 32;
// Meanwhile somebody else may fill the pool, and what is under way stand still.
constexpr std::chrono::seconds kAskAgain(1);

// Room for less than this, in blocks, is none.
uint64_t Reserve(uint64_t total, uint64_t most) {
  return std::min(total * kReservePercent / 100, most);
}

uint64_t Free(uint64_t used, uint64_t total) {
  return total - std::min(used, total);
}

class WatchedWriter final : public BlockWriter {
 public:
  WatchedWriter(PoolSpace space, std::unique_ptr<BlockWriter> writer)
      : space_(std::move(space)), writer_(std::move(writer)) {}

  const std::string& name() const override { return writer_->name(); }
  uint64_t size() const override { return writer_->size(); }

  absl::Status Write(std::span<const WriteOperation> operations) override {
    const uint64_t block = space_.block_bytes();
    uint64_t blocks = 0;
    uint64_t last = UINT64_MAX;
    for (const WriteOperation& operation : operations) {
      if (operation.data.empty()) continue;
      const uint64_t first = operation.offset / block;
      const uint64_t end =
          (operation.offset + operation.data.size() - 1) / block;
      blocks += end - first + (first == last ? 0 : 1);
      last = end;
    }
    SNAPSYNC_RETURN_IF_ERROR(space_.BeginWrite(blocks * block));
    const absl::Cleanup end = [&] { space_.EndWrite(blocks * block); };
    return writer_->Write(operations);
  }

  // Discards, and writes at most to the blocks at the two ends.
  absl::Status Zero(Extent extent) override {
    const uint64_t most = 2 * space_.block_bytes();
    SNAPSYNC_RETURN_IF_ERROR(space_.BeginWrite(most));
    const absl::Cleanup end = [&] { space_.EndWrite(most); };
    return writer_->Zero(extent);
  }

  absl::Status Flush() override { return writer_->Flush(); }
  absl::Status ReadBack(std::span<const ReadOperation> operations) override {
    return writer_->ReadBack(operations);
  }
  bool copies() const override { return writer_->copies(); }

 private:
  const PoolSpace space_;
  const std::unique_ptr<BlockWriter> writer_;
};

}  // namespace

struct PoolSpace::UnderWay {
  Mutex mutex;
  uint64_t bytes ABSL_GUARDED_BY(mutex) = 0;
  uint64_t ended ABSL_GUARDED_BY(mutex) = 0;  // writes
};

std::shared_ptr<PoolSpace::UnderWay> PoolSpace::UnderWayIn(
    const std::string& uuid) {
  static Mutex mutex;
  static auto& pools = *new std::map<std::string, std::weak_ptr<UnderWay>>;
  const MutexLock lock(&mutex);
  std::weak_ptr<UnderWay>& known = pools[uuid];
  std::shared_ptr<UnderWay> found = known.lock();
  if (found == nullptr) known = found = std::make_shared<UnderWay>();
  return found;
}

PoolSpace::PoolSpace(ReadStatus read, uint64_t block_bytes,
                     const std::string& name, const std::string& uuid)
    : read_(std::move(read)),
      block_bytes_(block_bytes),
      name_("thin pool " + name),
      under_way_(UnderWayIn(uuid)) {}

absl::Status PoolSpace::CheckMode(const PoolStatus& status) const {
  if (status.failed) {
    return Error(Reason::kTargetUnsuitable, name_ + " has failed");
  }
  if (status.needs_check) {
    return Error(Reason::kTargetUnsuitable,
                 name_ +
                     ": its metadata could not be written and has to be "
                     "checked (needs_check); docs/operating.md has how");
  }
  if (status.mode == "out_of_data_space") {
    return Error(Reason::kNoSpace,
                 name_ + " is full; enlarge it (lvextend) or remove snapshots");
  }
  if (status.mode != "rw") {
    return Error(Reason::kTargetUnsuitable,
                 name_ + " takes no writes (mode " + status.mode + ")");
  }
  return absl::OkStatus();
}

absl::Status PoolSpace::CheckUsable() const {
  SNAPSYNC_ASSIGN_OR_RETURN(const PoolStatus status, read_());
  return CheckMode(status);
}

absl::Status PoolSpace::CheckMetadata() const {
  const absl::Status status = CheckUsable();
  if (!status.ok() && ReasonOf(status) == Reason::kNoSpace) {
    return absl::OkStatus();
  }
  return status;
}

absl::Status PoolSpace::CheckRoom(uint64_t new_bytes,
                                  uint64_t mapped_bytes) const {
  SNAPSYNC_ASSIGN_OR_RETURN(const PoolStatus status, read_());
  SNAPSYNC_RETURN_IF_ERROR(CheckMode(status));
  return CheckFree(status, new_bytes, mapped_bytes);
}

absl::Status PoolSpace::BeginWrite(uint64_t bytes) const {
  UnderWay& others = *under_way_;
  const MutexLock lock(&others.mutex);
  while (true) {
    SNAPSYNC_ASSIGN_OR_RETURN(const PoolStatus status, read_());
    SNAPSYNC_RETURN_IF_ERROR(CheckMode(status));
    const absl::Status room = CheckFree(status, others.bytes + bytes, 0);
    if (room.ok()) {
      others.bytes += bytes;
      return room;
    }
    // Some of what is under way may be in the status already.
    if (others.bytes == 0) return room;
    const uint64_t before = others.ended;
    others.mutex.AwaitFor(kAskAgain,
                          [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(others.mutex) {
                            return others.ended != before;
                          });
  }
}

void PoolSpace::EndWrite(uint64_t bytes) const {
  const MutexLock lock(&under_way_->mutex);
  under_way_->bytes -= bytes;
  ++under_way_->ended;
}

absl::Status PoolSpace::CheckFree(const PoolStatus& status, uint64_t new_bytes,
                                  uint64_t mapped_bytes) const {
  const uint64_t blocks = new_bytes / block_bytes_;
  const uint64_t free = Free(status.used_data_blocks, status.total_data_blocks);
  const uint64_t reserve =
      Reserve(status.total_data_blocks, kReserveBytes / block_bytes_);
  if (free < blocks + reserve) {
    return Error(
        Reason::kNoSpace,
        absl::StrCat(name_, " has ", FormatBytes(free * block_bytes_),
                     " free: too little for ", FormatBytes(new_bytes),
                     " and a reserve of ", FormatBytes(reserve * block_bytes_),
                     "; enlarge it (lvextend) or remove snapshots, and run the "
                     "same again"));
  }
  // Each leaf that is changed is written anew, the old one stays with the
  // snapshot; and new leaves.
  const uint64_t metadata =
      std::min(blocks, mapped_bytes / block_bytes_ / kMappingsPerLeaf) +
      blocks / kMappingsPerLeaf + kMetadataOverhead;
  const uint64_t metadata_free =
      Free(status.used_metadata_blocks, status.total_metadata_blocks);
  const uint64_t metadata_reserve =
      Reserve(status.total_metadata_blocks, kReserveMetadataBlocks);
  if (metadata_free < metadata + metadata_reserve) {
    return Error(
        Reason::kNoSpace,
        absl::StrCat(
            name_, " has ", FormatBytes(metadata_free * kMetadataBlockBytes),
            " of its metadata free: too little for ",
            FormatBytes(metadata * kMetadataBlockBytes), " and a reserve of ",
            FormatBytes(metadata_reserve * kMetadataBlockBytes),
            "; enlarge it (lvextend --poolmetadatasize), and run the "
            "same again"));
  }
  return absl::OkStatus();
}

std::unique_ptr<BlockWriter> PoolSpace::Watch(
    std::unique_ptr<BlockWriter> writer) const {
  return std::make_unique<WatchedWriter>(*this, std::move(writer));
}

}  // namespace snapsync
