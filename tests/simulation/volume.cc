// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/volume.h"

#include <array>
#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"

namespace snapsync::simulation {

Volume::Volume(uint64_t size, bool in_place, Machine* machine, SectorPool* pool)
    : size_(size), in_place_(in_place), machine_(machine), pool_(pool) {
  visible_ = MakeDisk("volume");
  machine->OnPowerCut([this] {
    visible_->LosePower();
    if (stage_ != nullptr) stage_->LosePower();
  });
}

std::shared_ptr<Disk> Volume::MakeDisk(const std::string& name) {
  return std::make_shared<Disk>(name, size_, machine_, pool_);
}

bool Volume::HasStage(const std::string& token) const {
  return !token.empty() && stage_token_ == token;
}

std::string Volume::Seal() const {
  return switched_seal_ + "+" + std::to_string(stranger_writes_);
}

void Volume::WriteAsStranger(uint64_t sector, uint64_t number) {
  ++stranger_writes_;
  visible_->WriteAsStranger(sector, number);
}

// The port, of the boot in which it is made.
class SimulatedTarget final : public Target {
 public:
  SimulatedTarget(Volume* volume, Machine* machine)
      : volume_(volume), machine_(machine), boot_(machine->boot()) {}

  bool in_place() const override { return volume_->in_place(); }

  absl::StatusOr<TargetFacts> Inspect() override {
    SNAPSYNC_RETURN_IF_ERROR(Fails("inspect"));
    TargetFacts facts;
    facts.identity = "simulated";
    facts.size = volume_->size();
    facts.blank = volume_->visible()->seen().sectors().empty();
    facts.blank_by_sample = facts.blank && volume_->by_sample_;
    return facts;
  }

  absl::Status CheckSeal(const std::string& seal) override {
    SNAPSYNC_RETURN_IF_ERROR(Fails("check seal"));
    return seal == volume_->Seal() ? absl::OkStatus() : WrongSeal();
  }

  absl::StatusOr<std::unique_ptr<BlockReader>> OpenReader() override {
    SNAPSYNC_RETURN_IF_ERROR(Fails("open reader"));
    return OpenDiskReader(volume_->visible(), machine_);
  }

  absl::StatusOr<std::string> CreateStage(uint64_t size,
                                          bool from_base) override {
    SNAPSYNC_RETURN_IF_ERROR(Fails("create stage"));
    if (size > volume_->size()) machine_->Violate("a stage that does not fit");
    volume_->stage_token_ = "stage-" + std::to_string(++volume_->tokens_);
    const std::string token = volume_->stage_token_;
    if (!in_place()) {
      volume_->stage_ = volume_->MakeDisk("stage");
      volume_->stage_->Replace(volume_->visible_->seen());
      // "Contents do not matter": then let them be bad ones.
      if (!from_base && !volume_->visible_->seen().sectors().empty()) {
        AddGarbage(*volume_->stage_);
      }
    }
    SNAPSYNC_RETURN_IF_ERROR(machine_->After(boot_, "create stage"));
    return token;
  }

  absl::StatusOr<std::unique_ptr<BlockWriter>> OpenStage(
      const std::string& token) override {
    SNAPSYNC_RETURN_IF_ERROR(Fails("open stage"));
    if (!volume_->HasStage(token)) return NoStage();
    FlushWay way = FlushWay::kHonest;
    switch (machine_->lie()) {
      case Lie::kStageFlushDoesNothing:
      case Lie::kStageFlushAfterJournal:
        way = FlushWay::kNothing;
        break;
      case Lie::kStageFlushTriedAgain:
        way = FlushWay::kTriedAgain;
        break;
      default:
        break;
    }
    return OpenDiskWriter(volume_->stage(), machine_, way);
  }

  absl::StatusOr<std::string> Commit(const std::string& token, uint64_t number,
                                     const Id128& /*generation*/,
                                     const std::string& base_seal) override {
    SNAPSYNC_RETURN_IF_ERROR(Fails("commit"));
    if (volume_->switched_token_ == token)
      return volume_->switched_seal_ + "+0";
    if (!volume_->HasStage(token)) return NoStage();
    if (!in_place() && !base_seal.empty() && base_seal != volume_->Seal()) {
      return WrongSeal();
    }
    volume_->on_switch_(base_seal);
    if (!in_place()) volume_->visible_ = std::move(volume_->stage_);
    volume_->stage_ = nullptr;
    volume_->stage_token_.clear();
    volume_->switched_token_ = token;
    volume_->switched_seal_ = "g" + std::to_string(number) + token;
    volume_->stranger_writes_ = 0;
    SNAPSYNC_RETURN_IF_ERROR(machine_->After(boot_, "switch"));
    volume_->on_switched_();
    const std::string seal = volume_->Seal();
    SNAPSYNC_RETURN_IF_ERROR(Fails("after commit"));
    return seal;
  }

  absl::Status RemoveStage(const std::string& /*token*/) override {
    SNAPSYNC_RETURN_IF_ERROR(Fails("remove stage"));
    volume_->stage_ = nullptr;
    volume_->stage_token_.clear();
    return machine_->After(boot_, "remove stage");
  }

  absl::Status Prune(uint64_t /*number*/, uint64_t /*keep*/) override {
    return Fails("prune");
  }

 private:
  absl::Status Fails(std::string_view what) {
    SNAPSYNC_RETURN_IF_ERROR(machine_->Before(boot_, what));
    if (!machine_->DiskFails(what)) return absl::OkStatus();
    return Error(Reason::kIo, "simulated failure of " + std::string(what));
  }
  static absl::Status NoStage() {
    return Error(Reason::kBaseMismatch, "the stage is not there any more");
  }
  static absl::Status WrongSeal() {
    return Error(Reason::kBaseMismatch, "somebody wrote to the volume");
  }
  void AddGarbage(Disk& disk) {
    std::array<std::byte, kSectorBytes> bytes;
    for (int i = 0; i < 4; ++i) {
      machine_->random().Fill(bytes);
      disk.Write(machine_->random().Below(disk.size() / kSectorBytes), bytes);
    }
    disk.Flush();
  }

  Volume* const volume_;
  Machine* const machine_;
  const uint64_t boot_;
};

std::unique_ptr<Target> Volume::Open() {
  return std::make_unique<SimulatedTarget>(this, machine_);
}

}  // namespace snapsync::simulation
