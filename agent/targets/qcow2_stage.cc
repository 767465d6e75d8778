// SPDX-License-Identifier: Apache-2.0
#include "agent/targets/qcow2_stage.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <thread>
#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "common/block/device_holders.h"
#include "common/qcow2/format.h"

namespace snapsync {
namespace {

class SharedWriter final : public BlockWriter {
 public:
  explicit SharedWriter(std::shared_ptr<Qcow2Stage> stage)
      : stage_(std::move(stage)) {}

  const std::string& name() const override { return stage_->writer->name(); }
  uint64_t size() const override { return stage_->writer->size(); }
  absl::Status Write(std::span<const WriteOperation> operations) override {
    return stage_->writer->Write(operations);
  }
  absl::Status Zero(Extent extent) override {
    return stage_->writer->Zero(extent);
  }
  absl::Status Flush() override { return stage_->writer->Flush(); }
  absl::Status ReadBack(std::span<const ReadOperation> operations) override {
    return stage_->writer->ReadBack(operations);
  }
  bool copies() const override { return stage_->writer->copies(); }

 private:
  const std::shared_ptr<Qcow2Stage> stage_;
};

uint64_t Now(const Qcow2Options& options) {
  if (options.unix_seconds) return options.unix_seconds();
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(now).count());
}

}  // namespace

void Qcow2Stage::Retire() {
  writer->Retire();
  lock.reset();
}

std::unique_ptr<BlockWriter> ShareStage(std::shared_ptr<Qcow2Stage> stage) {
  return std::make_unique<SharedWriter>(std::move(stage));
}

absl::StatusOr<uint64_t> VirtualSizeOf(const Qcow2Options& options,
                                       const qcow2::Geometry& geometry,
                                       uint64_t size) {
  const uint64_t wanted =
      options.virtual_size == 0 ? size : options.virtual_size;
  if (wanted < size) {
    return Error(Reason::kTargetUnsuitable,
                 "a virtual size of " + std::to_string(wanted) +
                     " bytes is less than the source's " +
                     std::to_string(size) + "; choose a larger one");
  }
  if (size % kSectorBytes != 0 || wanted % kSectorBytes != 0) {
    return Error(Reason::kTargetUnsuitable,
                 "a disk of " + std::to_string(wanted) +
                     " bytes is not made of whole sectors of 512 bytes");
  }
  // QEMU's limit, and less than what overflows anything.
  constexpr uint64_t kMaxSize = uint64_t{1} << 60;
  if (wanted > kMaxSize ||
      geometry.L1EntriesOf(wanted) * 8 > qcow2::Geometry::kMaxL1Bytes) {
    return Error(Reason::kTargetUnsuitable,
                 "clusters of " + FormatBytes(geometry.cluster_bytes()) +
                     " are too small for a disk of " + FormatBytes(wanted) +
                     "; choose larger ones");
  }
  return wanted;
}

absl::StatusOr<qcow2::ExportHeader> MakeGuardHeader(const Qcow2Options& options,
                                                    uint64_t size,
                                                    const Id128& stage) {
  qcow2::ExportHeader header;
  const uint64_t cluster = options.cluster_size;
  header.geometry.cluster_bits =
      static_cast<uint32_t>(std::countr_zero(cluster));
  if (!std::has_single_bit(cluster) ||
      header.geometry.cluster_bits < qcow2::Geometry::kMinWriteBits ||
      header.geometry.cluster_bits > qcow2::kMaxClusterBits) {
    return Error(Reason::kUsage,
                 "a cluster size of " + std::to_string(cluster) +
                     " bytes: choose a power of two from 4K to 2M");
  }
  if (options.replication.size() > qcow2::Identity::kMaxReplicationBytes) {
    return Error(Reason::kUsage,
                 "the replication's name has more than " +
                     std::to_string(qcow2::Identity::kMaxReplicationBytes) +
                     " bytes, which is all that an export has room for");
  }
  SNAPSYNC_ASSIGN_OR_RETURN(header.size,
                            VirtualSizeOf(options, header.geometry, size));
  header.compression_type =
      options.compression == Qcow2Options::Compression::kZstd
          ? qcow2::kCompressionZstd
          : qcow2::kCompressionDeflate;
  header.incomplete = true;
  header.identity.replication = options.replication;
  header.identity.generation = stage;
  return header;
}

qcow2::StoreOptions StoreOptionsOf(const Qcow2Options& options,
                                   const qcow2::StageHead& head,
                                   uint8_t compression_type,
                                   BlockReader* backing) {
  qcow2::StoreOptions store;
  store.geometry = head.geometry;
  store.compression_type = compression_type;
  store.compress = static_cast<Qcow2Options::Compression>(head.compression) !=
                   Qcow2Options::Compression::kNone;
  store.write_threads = options.write_behind ? qcow2::WriteQueue::kThreads : 0;
  store.compression_threads =
      options.write_behind ? std::max(1U, std::thread::hardware_concurrency())
                           : 0;
  store.backing = backing;
  return store;
}

qcow2::Identity IdentityOf(const Qcow2Options& options, uint64_t number,
                           const Id128& generation, const Id128& previous) {
  qcow2::Identity identity;
  identity.replication = options.replication;
  identity.generation = generation;
  identity.previous = previous;
  identity.number = number;
  identity.unix_seconds = Now(options);
  return identity;
}

absl::Status NoStage(const std::string& path) {
  return Error(Reason::kBaseMismatch,
               "the stage of " + path + " is not there any more");
}

absl::StatusOr<std::unique_ptr<qcow2::StageJournal>> OpenJournal(
    HostFolder& folder, const std::string& name, const Id128& stage) {
  SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<qcow2::StageHead> head,
                            LookAtJournal(folder, name));
  if (!head.has_value() || head->stage != stage) {
    return NoStage(folder.path() + name);
  }
  SNAPSYNC_ASSIGN_OR_RETURN(auto file,
                            folder.Open(name, HostFolder::Access::kWrite));
  if (file == nullptr) return NoStage(folder.path() + name);
  return qcow2::StageJournal::Open(std::move(file));
}

absl::StatusOr<std::optional<qcow2::StageHead>> LookAtJournal(
    HostFolder& folder, const std::string& name) {
  SNAPSYNC_ASSIGN_OR_RETURN(const auto file,
                            folder.Open(name, HostFolder::Access::kRead));
  if (file == nullptr) return std::optional<qcow2::StageHead>();
  auto head = qcow2::StageJournal::ReadHead(*file);
  if (head.ok()) return *head;
  if (ReasonOf(head.status()) != Reason::kBaseMismatch) return head.status();
  SNAPSYNC_ASSIGN_OR_RETURN(const uint64_t bytes, file->Size());
  if (bytes <= qcow2::StageJournal::kHeadBytes) {
    return std::optional<qcow2::StageHead>();
  }
  return Error(
      Reason::kTargetUnsuitable,
      file->name() + " is in the way, and not ours; move it somewhere else");
}

absl::Status CheckNotOpen(GrowingFile& file) {
  SNAPSYNC_ASSIGN_OR_RETURN(
      const std::string holder,
      DescribeHolders("/proc/self/fd/" + std::to_string(file.descriptor())));
  if (holder.empty()) return absl::OkStatus();
  return Error(Reason::kBusy,
               file.name() + " is " + holder + "; try again when it is free");
}

}  // namespace snapsync
