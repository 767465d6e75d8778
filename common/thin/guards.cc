// SPDX-License-Identifier: Apache-2.0
#include "common/thin/guards.h"

#include <algorithm>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/thin/format.h"

namespace snapsync {
namespace {

constexpr char kGuardPayload[] = "snapsync/guard";
constexpr char kAnotherMethod[] = "send in full, or compare both sides by hash";
constexpr char kNewSnapshot[] = "make a new snapshot and send that";

template <typename T>
absl::Status Expect(Guard guard, std::string_view field, const T& found,
                    const T& expected) {
  if (found == expected) return absl::OkStatus();
  return GuardRefusal(
      guard, absl::StrCat(std::string(field), ": found ", found, ", expected ",
                          expected, "; ", kAnotherMethod));
}

std::string Quoted(const std::string& uuid) {
  return uuid.empty() ? "none" : uuid;
}

// G2, G3, and of G4 what is not the base's own.
absl::Status CheckSamePool(const BaseRecord& record,
                           const Superblock& superblock,
                           const PoolFacts& facts) {
  SNAPSYNC_RETURN_IF_ERROR(
      Expect(Guard::kSamePool, "data block size of the pool in sectors",
             superblock.data_block_sectors, record.data_block_sectors));
  if (superblock.time < record.pool_time) {
    return GuardRefusal(
        Guard::kSameTimeline,
        absl::StrCat("time of the pool: found ", superblock.time,
                     ", expected at least ", record.pool_time,
                     ": its metadata was set back; ", kAnotherMethod));
  }
  if (superblock.transaction_id < record.pool_transaction_id) {
    return GuardRefusal(
        Guard::kSameTimeline,
        absl::StrCat("transaction of the pool: found ",
                     superblock.transaction_id, ", expected at least ",
                     record.pool_transaction_id,
                     ": its metadata was set back; ", kAnotherMethod));
  }
  SNAPSYNC_RETURN_IF_ERROR(
      Expect(Guard::kSameVolume, "UUID of the volume group",
             Quoted(facts.vg_uuid), Quoted(record.vg_uuid)));
  SNAPSYNC_RETURN_IF_ERROR(Expect(Guard::kSameVolume, "UUID of the pool",
                                  Quoted(facts.pool_uuid),
                                  Quoted(record.pool_uuid)));
  return absl::OkStatus();
}

// G8: what is not mapped is zero, and the size is known.
absl::Status CheckContentsKnown(const BaseRecord& record,
                                const std::string& name) {
  if (record.external_origin) {
    return GuardRefusal(
        Guard::kKnownContents,
        absl::StrCat(name, ": external origin: found one, expected none; ",
                     kAnotherMethod));
  }
  if (record.device_size == 0) {
    return GuardRefusal(
        Guard::kKnownContents,
        absl::StrCat(name,
                     ": size: found none in the record, expected the "
                     "base's size; ",
                     kAnotherMethod));
  }
  return absl::OkStatus();
}

// A volume's UUID is random and never comes again, so it can't be one of
// another history; its thin device tells that the metadata was not set back
// without LVM.
bool Testifies(const WitnessFacts& witness, const BaseRecord& base) {
  const WitnessRecord& record = witness.record;
  return !record.lv_uuid.empty() && witness.lv_uuid == record.lv_uuid &&
         record.transaction_id >= base.transaction_id && witness.device &&
         witness.device->id == record.device_id &&
         witness.device->transaction_id == record.transaction_id &&
         witness.device->creation_time == record.creation_time;
}

std::string DescribeWitnesses(const std::vector<WitnessFacts>& witnesses) {
  std::string text;
  for (const WitnessFacts& witness : witnesses) {
    if (witness.record.lv_uuid.empty()) continue;
    absl::StrAppend(&text, text.empty() ? "" : " or ", "volume ",
                    witness.record.lv_uuid, " with thin id ",
                    witness.record.device_id, " and transaction ",
                    witness.record.transaction_id);
  }
  return text.empty() ? "a volume of LVM, by its UUID" : text;
}

}  // namespace

absl::Status GuardRefusal(Guard guard, std::string_view message) {
  absl::Status status = Error(
      Reason::kBaseMismatch,
      absl::StrCat("G", static_cast<int>(guard), ": ", std::string(message)));
  status.SetPayload(kGuardPayload,
                    absl::Cord(absl::StrCat(static_cast<int>(guard))));
  return status;
}

std::optional<Guard> GuardOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kGuardPayload);
  int number = 0;
  if (!payload || !absl::SimpleAtoi(std::string(*payload), &number)) {
    return std::nullopt;
  }
  return static_cast<Guard>(number);
}

absl::Status CheckPool(const Superblock& superblock,
                       const std::optional<PoolStatus>& status) {
  const auto unhealthy = [](std::string_view found) {
    return GuardRefusal(
        Guard::kPoolHealthy,
        absl::StrCat("state of the pool: found ", std::string(found),
                     ", expected a pool that is writable and needs no check: "
                     "it may have lost writes; nothing is sent: "
                     "docs/operating.md has how the pool is checked"));
  };
  if (superblock.needs_check) return unhealthy("needs_check in the superblock");
  if (status) {
    if (const auto found = status->WhyReadOnly()) return unhealthy(*found);
  }
  if (superblock.time >= kTimeLimit) {
    return GuardRefusal(
        Guard::kSameTimeline,
        absl::StrCat("time of the pool: found ", superblock.time,
                     ", expected less than ", kTimeLimit,
                     ": after so many snapshots the kernel damages mappings; "
                     "nothing is sent: copy the volumes to a new pool"));
  }
  return absl::OkStatus();
}

absl::Status CheckSnapshot(const PoolFacts& facts) {
  if (!facts.snapshot_external_origin) return absl::OkStatus();
  return GuardRefusal(
      Guard::kKnownContents,
      absl::StrCat("external origin of the snapshot: found one, expected none: "
                   "what is not mapped is not zero but the origin's; ",
                   kAnotherMethod));
}

absl::Status CheckBase(const BaseRecord& record, const Superblock& superblock,
                       const PoolFacts& facts,
                       const std::optional<ThinDevice>& device) {
  SNAPSYNC_RETURN_IF_ERROR(CheckSamePool(record, superblock, facts));
  SNAPSYNC_RETURN_IF_ERROR(
      Expect(Guard::kSameVolume,
             absl::StrCat("UUID of the volume with thin id ", record.device_id),
             Quoted(facts.base_lv_uuid), Quoted(record.lv_uuid)));
  if (!device) {
    return GuardRefusal(
        Guard::kSameDevice,
        absl::StrCat("base, thin device ", record.device_id,
                     ": found none, expected the snapshot of the last sync: it "
                     "was deleted; ",
                     kAnotherMethod));
  }
  const std::string name = absl::StrCat("base, thin device ", device->id);
  SNAPSYNC_RETURN_IF_ERROR(
      Expect(Guard::kSameDevice, absl::StrCat(name, ": transaction"),
             device->transaction_id, record.transaction_id));
  // A snapshot has a time of at least 1; 0: it was not recorded.
  if (record.creation_time != 0) {
    SNAPSYNC_RETURN_IF_ERROR(
        Expect(Guard::kSameDevice, absl::StrCat(name, ": creation time"),
               device->creation_time, record.creation_time));
  }
  SNAPSYNC_RETURN_IF_ERROR(Expect(Guard::kSameDevice,
                                  absl::StrCat(name, ": mapped blocks"),
                                  device->mapped_blocks, record.mapped_blocks));
  return CheckContentsKnown(record, name);
}

absl::Status CheckSavedBase(const BaseRecord& record,
                            const Superblock& superblock,
                            const PoolFacts& facts,
                            const std::vector<WitnessFacts>& witnesses,
                            const ThinDevice& snapshot) {
  SNAPSYNC_RETURN_IF_ERROR(CheckSamePool(record, superblock, facts));
  SNAPSYNC_RETURN_IF_ERROR(CheckContentsKnown(
      record, absl::StrCat("base, thin device ", record.device_id)));
  if (snapshot.creation_time <= record.creation_time) {
    return GuardRefusal(
        Guard::kSnapshotFrozen,
        absl::StrCat("snapshot, thin device ", snapshot.id,
                     ": creation time: found ", snapshot.creation_time,
                     ", expected more than the base's, ", record.creation_time,
                     "; ", kNewSnapshot));
  }
  if (std::any_of(witnesses.begin(), witnesses.end(),
                  [&](const WitnessFacts& witness) {
                    return Testifies(witness, record);
                  })) {
    return absl::OkStatus();
  }
  return GuardRefusal(
      Guard::kProvenTimeline,
      absl::StrCat("witness that the pool was not set back since the base was "
                   "made: found none, expected ",
                   DescribeWitnesses(witnesses), "; ", kAnotherMethod));
}

bool BaseNeedsWholeWalk(const ThinDevice& base) {
  return base.snapshotted_time != base.creation_time;
}

absl::Status CheckBaseFrozen(const ThinDevice& base, const TreeWalk& walk) {
  if (walk.entries == 0 || walk.latest_time < base.creation_time) {
    return absl::OkStatus();
  }
  return GuardRefusal(
      Guard::kBaseFrozen,
      absl::StrCat("base, thin device ", base.id,
                   ": time of its latest mapping: found ", walk.latest_time,
                   ", expected less than ", base.creation_time,
                   ", its creation: it was written to, or is no snapshot; ",
                   kAnotherMethod));
}

absl::Status CheckSnapshotFrozen(const ThinDevice& snapshot,
                                 const TreeWalk& walk) {
  if (walk.entries == 0 || walk.latest_time < snapshot.creation_time) {
    return absl::OkStatus();
  }
  return GuardRefusal(
      Guard::kSnapshotFrozen,
      absl::StrCat("snapshot, thin device ", snapshot.id,
                   ": time of its latest mapping: found ", walk.latest_time,
                   ", expected less than ", snapshot.creation_time,
                   ", its creation: it was written to, or is no snapshot; ",
                   kNewSnapshot));
}

std::vector<std::string> PoolWarnings(const Superblock& superblock) {
  if (superblock.time < kTimeWarning) return {};
  return {absl::StrCat(
      "the pool has made ", superblock.time, " snapshots; at ", kTimeLimit,
      " the kernel begins to damage mappings: move the volumes to a new pool")};
}

}  // namespace snapsync
