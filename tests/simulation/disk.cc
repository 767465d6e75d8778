// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/disk.h"

#include <algorithm>
#include <array>
#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"

namespace snapsync::simulation {

void Disk::Apply(const Change& change, SparseImage& image) {
  if (change.zeroed.length > 0) {
    image.Zero(change.zeroed);
  } else {
    image.Set(change.sector, change.number);
  }
}

void Disk::Replace(const SparseImage& image) {
  seen_ = image;
  durable_ = image;
  cached_.clear();
  ++changes_;
}

void Disk::WriteAsStranger(uint64_t sector, uint64_t number) {
  seen_.Set(sector, number);
  durable_.Set(sector, number);
  ++changes_;
}

void Disk::Write(uint64_t sector, std::span<const std::byte> bytes) {
  for (; !bytes.empty(); bytes = bytes.subspan(kSectorBytes), ++sector) {
    const uint64_t number = pool_->NumberOf(bytes.first(kSectorBytes));
    seen_.Set(sector, number);
    cached_.push_back({{}, sector, number});
  }
  ++changes_;
}

void Disk::Zero(Extent extent) {
  seen_.Zero(extent);
  cached_.push_back({extent, 0, 0});
  ++changes_;
}

void Disk::Flush() {
  for (const Change& change : cached_) Apply(change, durable_);
  cached_.clear();
}

void Disk::FailFlush() {
  for (const Change& change : cached_) {
    if (machine_->random().Percent(50)) Apply(change, durable_);
  }
  cached_.clear();
}

void Disk::LosePower() {
  Random& random = machine_->random();
  constexpr std::array<double, 4> kKept = {0, 50, 90, 100};
  const double kept = kKept[random.Below(kKept.size())];
  for (const Change& change : cached_) {
    if (random.Percent(kept)) {
      Apply(change, durable_);
    } else if (change.zeroed.length > kSectorBytes && random.Percent(kept)) {
      const uint64_t sectors = change.zeroed.length / kSectorBytes;
      const uint64_t first = random.Below(sectors);
      durable_.Zero({change.zeroed.offset + first * kSectorBytes,
                     random.Between(1, sectors - first) * kSectorBytes});
    }
  }
  cached_.clear();
  seen_ = durable_;
  ++changes_;
}

namespace {

class DiskReader final : public BlockReader {
 public:
  DiskReader(std::shared_ptr<Disk> disk, Machine* machine)
      : disk_(std::move(disk)), machine_(machine), boot_(machine->boot()) {}

  const std::string& name() const override { return disk_->name(); }
  uint64_t size() const override { return disk_->size(); }

  absl::Status Read(std::span<const ReadOperation> operations) override {
    SNAPSYNC_RETURN_IF_ERROR(machine_->Before(boot_, "read " + name()));
    if (machine_->DiskFails("read")) {
      return Error(Reason::kIo, name() + ": simulated failure of a read");
    }
    for (const ReadOperation& operation : operations) {
      if (operation.offset > size() ||
          operation.data.size() > size() - operation.offset) {
        return Error(Reason::kIo, name() + ": read beyond the end");
      }
      disk_->seen().Read(disk_->pool(), operation.offset, operation.data);
    }
    return absl::OkStatus();
  }

 private:
  const std::shared_ptr<Disk> disk_;
  Machine* const machine_;
  const uint64_t boot_;
};

class DiskWriter final : public BlockWriter {
 public:
  DiskWriter(std::shared_ptr<Disk> disk, Machine* machine, FlushWay way,
             std::function<void()> after_flush)
      : disk_(std::move(disk)),
        machine_(machine),
        way_(way),
        after_flush_(std::move(after_flush)),
        boot_(machine->boot()) {}

  const std::string& name() const override { return disk_->name(); }
  uint64_t size() const override { return disk_->size(); }

  absl::Status Write(std::span<const WriteOperation> operations) override {
    SNAPSYNC_RETURN_IF_ERROR(machine_->Before(boot_, "write " + name()));
    const bool fails = machine_->DiskFails("write");
    for (const WriteOperation& operation : operations) {
      if (operation.offset % kSectorBytes != 0 ||
          operation.data.size() % kSectorBytes != 0 ||
          operation.offset > size() ||
          operation.data.size() > size() - operation.offset) {
        machine_->Violate(
            name() + ": write of " + std::to_string(operation.data.size()) +
            " bytes at offset " + std::to_string(operation.offset));
        return Error(Reason::kIo, "no such sectors");
      }
      // Of what fails a part may have happened, in any order.
      if (fails && machine_->random().Percent(50)) continue;
      disk_->Write(operation.offset / kSectorBytes, operation.data);
    }
    if (fails) return Error(Reason::kIo, "simulated failure of a write");
    return machine_->After(boot_, "write " + name());
  }

  absl::Status Zero(Extent extent) override {
    SNAPSYNC_RETURN_IF_ERROR(machine_->Before(boot_, "zero " + name()));
    if (extent.offset > size() || extent.length > size() - extent.offset) {
      machine_->Violate(name() + ": zeroes beyond the end");
      return Error(Reason::kIo, "no such sectors");
    }
    const bool fails = machine_->DiskFails("zero");
    if (!fails || machine_->random().Percent(50)) disk_->Zero(extent);
    if (fails) return Error(Reason::kIo, "simulated failure of a discard");
    return machine_->After(boot_, "zero " + name());
  }

  absl::Status Flush() override {
    SNAPSYNC_RETURN_IF_ERROR(machine_->Before(boot_, "flush " + name()));
    if (machine_->DiskFails("flush")) {
      disk_->FailFlush();
      if (way_ != FlushWay::kTriedAgain) {
        return Error(Reason::kIo, "simulated failure of a flush");
      }
    }
    if (way_ == FlushWay::kHonest || way_ == FlushWay::kTriedAgain) {
      disk_->Flush();
    }
    SNAPSYNC_RETURN_IF_ERROR(machine_->After(boot_, "flush " + name()));
    if (after_flush_) after_flush_();
    return absl::OkStatus();
  }

  absl::Status ReadBack(std::span<const ReadOperation> operations) override {
    return DiskReader(disk_, machine_).Read(operations);
  }

 private:
  const std::shared_ptr<Disk> disk_;
  Machine* const machine_;
  const FlushWay way_;
  const std::function<void()> after_flush_;
  const uint64_t boot_;
};

}  // namespace

std::unique_ptr<BlockReader> OpenDiskReader(std::shared_ptr<Disk> disk,
                                            Machine* machine) {
  return std::make_unique<DiskReader>(std::move(disk), machine);
}

std::unique_ptr<BlockWriter> OpenDiskWriter(std::shared_ptr<Disk> disk,
                                            Machine* machine, FlushWay way,
                                            std::function<void()> after_flush) {
  return std::make_unique<DiskWriter>(std::move(disk), machine, way,
                                      std::move(after_flush));
}

}  // namespace snapsync::simulation
