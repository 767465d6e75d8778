// SPDX-License-Identifier: Apache-2.0
#include "common/thin/saved_delta.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/thin/delta_builder.h"

namespace snapsync {
namespace {

// Steps through saved runs beside the walk of a tree. After an error it is at
// its end, and status() tells.
class SavedCursor {
 public:
  explicit SavedCursor(MappingsReader& reader) : reader_(reader) { Load(); }

  const absl::Status& status() const { return status_; }

  // Tells `builder` of all saved blocks below `virtual_block`.
  void SkipTo(uint64_t virtual_block, DeltaBuilder& builder) {
    while (run_ && run_->first < virtual_block) {
      const uint64_t count = std::min(run_->end(), virtual_block) - run_->first;
      builder.AddGone(run_->first, count);
      Advance(count);
    }
  }

  // The saved mapping of `virtual_block`. Requires SkipTo() of it before.
  std::optional<Mapping> Take(uint64_t virtual_block) {
    if (!run_ || run_->first != virtual_block) return std::nullopt;
    const Mapping mapping{run_->data_block, run_->time};
    Advance(1);
    return mapping;
  }

 private:
  void Advance(uint64_t count) {
    run_->first += count;
    run_->data_block += count;
    run_->length -= count;
    if (run_->length == 0) Load();
  }

  void Load() {
    absl::StatusOr<std::optional<MappingRun>> next = reader_.Next();
    status_ = next.status();
    run_ = next.ok() ? *next : std::nullopt;
  }

  MappingsReader& reader_;
  std::optional<MappingRun> run_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<TreeDelta> CompareWithSaved(PoolView& view,
                                           const BaseRecord& base,
                                           MappingsReader& saved,
                                           const ThinDevice& snapshot,
                                           uint64_t snapshot_size) {
  DeltaBuilder builder(view.superblock().data_block_bytes(),
                       {snapshot_size, base.device_size});
  SavedCursor cursor(saved);
  std::optional<uint64_t> beyond;
  SNAPSYNC_ASSIGN_OR_RETURN(
      const TreeWalk walk,
      WalkDevice(
          view, snapshot, [&](uint64_t virtual_block, const Mapping& now) {
            if (!builder.Addressable(virtual_block)) {
              beyond = virtual_block;
              return;
            }
            cursor.SkipTo(virtual_block, builder);
            const std::optional<Mapping> then = cursor.Take(virtual_block);
            builder.AddMapped(virtual_block,
                              then == now && now.time < base.creation_time);
          }));
  if (beyond) {
    return DamagedMetadata(
        view.name(), snapshot.mapping_root,
        absl::StrCat("mapping tree of thin device ", snapshot.id),
        absl::StrCat("virtual block ", *beyond),
        "virtual blocks whose offset fits 64 bits");
  }
  cursor.SkipTo(UINT64_MAX, builder);
  SNAPSYNC_RETURN_IF_ERROR(cursor.status());
  if (saved.mappings() != base.mapped_blocks) {
    return Error(Reason::kBaseMismatch,
                 absl::StrCat("the saved mappings: found ", saved.mappings(),
                              ", expected ", base.mapped_blocks,
                              "; the next sync writes them anew"));
  }
  return TreeDelta{builder.Finish(), TreeWalk(), walk};
}

absl::StatusOr<GuardedDelta> ComputeSavedDelta(
    PoolView& view, const DeltaRequest& request, const std::string& path,
    const SavedMappingsName& name,
    const std::vector<WitnessLookup>& witnesses) {
  SNAPSYNC_RETURN_IF_ERROR(CheckPool(view.superblock(), view.status()));
  SNAPSYNC_RETURN_IF_ERROR(CheckSnapshot(request.facts));
  SNAPSYNC_ASSIGN_OR_RETURN(const ThinDevice snapshot,
                            view.RequireDevice(request.snapshot_id));
  std::vector<WitnessFacts> facts;
  for (const WitnessLookup& witness : witnesses) {
    SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<ThinDevice> device,
                              view.FindDevice(witness.record.device_id));
    facts.push_back({witness.record, witness.lv_uuid, device});
  }
  SNAPSYNC_RETURN_IF_ERROR(CheckSavedBase(*request.base, view.superblock(),
                                          request.facts, facts, snapshot));
  SNAPSYNC_ASSIGN_OR_RETURN(MappingsReader saved,
                            MappingsReader::OpenFile(path, name));
  SNAPSYNC_ASSIGN_OR_RETURN(
      TreeDelta compared, CompareWithSaved(view, *request.base, saved, snapshot,
                                           request.snapshot_size));
  SNAPSYNC_RETURN_IF_ERROR(CheckSnapshotFrozen(snapshot, compared.snapshot));
  GuardedDelta result{std::move(compared.delta),
                      RecordOf(view, snapshot, request),
                      PoolWarnings(view.superblock())};
  result.delta.metadata_blocks_read = view.metadata_blocks_read();
  return result;
}

absl::Status SaveMappings(PoolView& view, const BaseRecord& record,
                          MappingsWriter& writer) {
  SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<ThinDevice> device,
                            view.FindDevice(record.device_id));
  if (!device || device->transaction_id != record.transaction_id ||
      device->creation_time != record.creation_time ||
      device->mapped_blocks != record.mapped_blocks) {
    return Error(Reason::kBaseMismatch,
                 absl::StrCat("thin device ", record.device_id,
                              " is not any more what was sent"));
  }
  absl::Status status;
  SNAPSYNC_ASSIGN_OR_RETURN(
      const TreeWalk walk,
      WalkDevice(view, *device,
                 [&](uint64_t virtual_block, const Mapping& mapping) {
                   if (status.ok()) status = writer.Add(virtual_block, mapping);
                 }));
  SNAPSYNC_RETURN_IF_ERROR(status);
  // With the same number of mappings, none of them younger than the snapshot:
  // so none came, and none went, since it was made.
  SNAPSYNC_RETURN_IF_ERROR(CheckSnapshotFrozen(*device, walk));
  return writer.Finish();
}

}  // namespace snapsync
