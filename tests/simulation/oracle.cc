// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/oracle.h"

#include <algorithm>

namespace snapsync::simulation {

Oracle::Oracle(Machine* machine, const StateDirectory* directory,
               Volume* volume)
    : machine_(machine),
      directory_(directory),
      volume_(volume),
      expected_(volume->visible()->seen()) {
  volume->OnSwitch(
      [this](const std::string& base_seal) { BeforeSwitch(base_seal); });
}

const Generation* Oracle::Find(const Id128& id) const {
  const auto found = generations_.find(id);
  return found == generations_.end() ? nullptr : found->second;
}

void Oracle::StrangerWrote() {
  expected_ = volume_->visible()->seen();
  stranger_wrote_ = true;
}

void Oracle::HeardOfWatermark(uint64_t watermark) {
  const TargetRecord& record = directory_->record();
  if (!record.session.has_value()) return;
  heard_session_ = record.session->id;
  heard_watermark_ = watermark;
  CheckDurable();
}

void Oracle::HeardOfCommit(const Id128& generation, uint64_t number) {
  heard_receipt_ = {generation, number};
  CheckVolume();
  if (held_ != generation && directory_->record().number <= number) {
    machine_->Violate("the sender heard of a commit that did not happen");
  }
}

void Oracle::BeforeSwitch(const std::string& base_seal) {
  const TargetRecord& record = directory_->record();
  if (!record.session.has_value()) {
    machine_->Violate("a commit without a session");
    return;
  }
  const Generation* next = Find(record.session->generation);
  if (next == nullptr) {
    Adopt(*record.session);
    return;
  }
  if (!next->base.none() && base_seal.empty() && !volume_->in_place()) {
    machine_->Violate("a commit that does not prove the base again");
  }
  const auto difference = volume_->stage()->seen().FirstDifference(
      next->image, {0, volume_->size()});
  if (difference.has_value()) {
    machine_->Violate("the stage is committed but differs at sector " +
                      std::to_string(*difference));
  }
  expected_ = next->image;
  held_ = next->id;
  stranger_wrote_ = false;
}

// What is on the volume becomes a generation of its own, by a session that
// writes nothing.
void Oracle::Adopt(const SessionRecord& session) {
  if (session.chunk_count != 0) {
    machine_->Violate("a commit of an unknown generation");
  }
  ++machine_->counters.adopted;
  // What a stranger writes meanwhile goes: the operator agreed to that.
  expected_ = volume_->stage()->seen();
  const auto difference = volume_->visible()->seen().FirstDifference(
      expected_, {0, volume_->size()});
  if (difference.has_value() && !stranger_wrote_) {
    machine_->Violate("the volume is adopted but changed at sector " +
                      std::to_string(*difference));
  }
  held_ = session.generation;
  stranger_wrote_ = false;
}

void Oracle::CheckVolume() {
  const Disk* disk = volume_->visible().get();
  if (disk == checked_disk_ && disk->changes() == checked_disk_changes_ &&
      directory_->changes() == checked_record_changes_) {
    return;
  }
  checked_disk_ = disk;
  checked_disk_changes_ = disk->changes();
  checked_record_changes_ = directory_->changes();
  const TargetRecord& record = directory_->record();
  if (record.state != TargetState::kTorn) {
    // Written in place, the new generation is whole before it is committed.
    const Generation* next =
        volume_->in_place() && record.state == TargetState::kCommitting
            ? Find(record.session->generation)
            : nullptr;
    const auto difference = disk->seen().FirstDifference(
        next != nullptr ? next->image : expected_, {0, volume_->size()});
    if (difference.has_value()) {
      machine_->Violate(
          "the volume is neither the old generation nor the new "
          "one at sector " +
          std::to_string(*difference) + ", state " +
          std::string(NameOf(record.state)));
    }
    const bool on_the_way = record.state == TargetState::kCommitting &&
                            record.session->generation == held_;
    if (record.generation != held_ && !on_the_way) {
      machine_->Violate("the record (" + std::string(NameOf(record.state)) +
                        ") does not name what the volume holds");
    }
  }
  const auto is_receipt = [this](const GenerationRecord& generation) {
    return generation.generation == heard_receipt_.generation &&
           generation.number == heard_receipt_.number;
  };
  if (!heard_receipt_.generation.none() &&
      std::none_of(record.generations.begin(), record.generations.end(),
                   is_receipt)) {
    machine_->Violate("a commit that the sender heard of is forgotten");
  }
}

void Oracle::CheckDurable() {
  const TargetRecord& record = directory_->record();
  if (!record.session.has_value() || record.session->stage.empty() ||
      !volume_->HasStage(record.session->stage)) {
    return;
  }
  const uint64_t watermark = directory_->DurableWatermark(record.session->id);
  if (record.session->id == heard_session_ && watermark < heard_watermark_) {
    machine_->Violate("the sender heard of watermark " +
                      std::to_string(heard_watermark_) +
                      ", a power cut now leaves " + std::to_string(watermark));
  }
  const Generation* next = Find(record.session->generation);
  if (next == nullptr) return;
  Plan::Cursor cursor(*next->plan);
  for (uint64_t chunk = 0; chunk < watermark; ++chunk) {
    for (const Piece& piece : cursor.Next()) {
      const auto difference = volume_->stage()->durable().FirstDifference(
          next->image, {piece.offset, piece.length});
      if (!difference.has_value()) continue;
      machine_->Violate("chunk " + std::to_string(chunk) +
                        " is below the watermark " + std::to_string(watermark) +
                        ", but a power cut now leaves something else at "
                        "sector " +
                        std::to_string(*difference));
      return;
    }
  }
}

}  // namespace snapsync::simulation
