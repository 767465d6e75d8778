// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/store.h"

#include <cstring>

#include "common/base/crc32c.h"
#include "common/base/endian.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"

namespace snapsync::simulation {

StateDirectory::StateDirectory(Machine* machine, SectorPool* pool)
    : machine_(machine),
      journal_(
          std::make_shared<Disk>("journal", Journal::kBytes, machine, pool)),
      through_text_(machine->random().Percent(10)) {
  machine->OnPowerCut([this] { LosePower(); });
}

void StateDirectory::Put(const TargetRecord& record) {
  record_ = record;
  exists_ = true;
  ++changes_;
}

void StateDirectory::LosePower() {
  journal_->LosePower();
  withheld_.reset();
  Put(durable_record_);
}

void StateDirectory::MakeDurable() {
  if (machine_->lie() == Lie::kRecordNotDurable &&
      machine_->random().Percent(50)) {
    return;
  }
  durable_record_ = record_;
}

void StateDirectory::TargetSwitched() {
  if (!withheld_.has_value()) return;
  Put(*withheld_);
  MakeDurable();
  withheld_.reset();
}

uint64_t StateDirectory::DurableWatermark(const Id128& session) const {
  uint64_t newest = 0;
  uint64_t watermark = 0;
  constexpr uint64_t kSectorsPerSlot = Journal::kSlotBytes / kSectorBytes;
  for (const auto& [sector, number] : journal_->durable().sectors()) {
    if (sector % kSectorsPerSlot != 0) continue;
    const std::byte* at = journal_->pool().BytesOf(number).data();
    const auto sequence = LoadLittle<uint64_t>(at + 8);
    if (LoadLittle<uint32_t>(at + 72) != Crc32c({at, 72}) ||
        std::memcmp(at + 16, session.bytes.data(), 16) != 0 ||
        sequence < newest) {
      continue;
    }
    newest = sequence;
    watermark = LoadLittle<uint64_t>(at + 32);
  }
  return watermark;
}

namespace {

absl::Status Failed(const std::string& what) {
  return Error(Reason::kIo, "simulated failure to " + what);
}

}  // namespace

absl::StatusOr<std::optional<TargetRecord>> SimulatedStore::Load(
    const std::string& /*volume*/) {
  SNAPSYNC_RETURN_IF_ERROR(machine_->Before(boot_, "load the record"));
  if (machine_->DiskFails("load the record")) {
    return Failed("load the record");
  }
  if (!directory_->exists_) return std::nullopt;
  directory_->MakeDurable();
  return directory_->record_;
}

absl::Status SimulatedStore::Save(const std::string& volume,
                                  const TargetRecord& record) {
  const std::string what = "save " + std::string(NameOf(record.state));
  SNAPSYNC_RETURN_IF_ERROR(machine_->Before(boot_, what));
  // The text form costs more than the rest: a part of the histories has it.
  absl::StatusOr<TargetRecord> read_back = record;
  if (directory_->through_text_) {
    read_back = DecodeTargetRecord(volume, EncodeTargetRecord(record));
  }
  if (!read_back.ok()) {
    machine_->Violate("a record can't be read back: " +
                      read_back.status().ToString());
    return read_back.status();
  }
  const bool fails = machine_->DiskFails(what);
  if (fails && machine_->random().Percent(50)) return Failed(what);
  if (machine_->lie() == Lie::kRecordAfterSwitch &&
      record.state == TargetState::kCommitting) {
    directory_->withheld_ = *read_back;
  } else {
    directory_->Put(*read_back);
  }
  SNAPSYNC_RETURN_IF_ERROR(machine_->After(boot_, what));
  if (fails && machine_->random().Percent(50)) return Failed(what);
  directory_->MakeDurable();
  if (fails) return Failed(what);
  return machine_->After(boot_, "flush of " + what);
}

absl::StatusOr<std::unique_ptr<Journal>> SimulatedStore::OpenJournal(
    const std::string& /*volume*/, const Id128& id) {
  const FlushWay way = machine_->lie() == Lie::kJournalFlushDoesNothing
                           ? FlushWay::kNothing
                           : FlushWay::kHonest;
  return Journal::Open(
      OpenDiskReader(directory_->journal_, machine_),
      OpenDiskWriter(directory_->journal_, machine_, way, flush_stage_), id);
}

}  // namespace snapsync::simulation
