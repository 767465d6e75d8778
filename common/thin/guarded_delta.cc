// SPDX-License-Identifier: Apache-2.0
#include "common/thin/guarded_delta.h"

#include <utility>

#include "common/base/status_macros.h"

namespace snapsync {

BaseRecord RecordOf(const PoolView& view, const ThinDevice& snapshot,
                    const DeltaRequest& request) {
  BaseRecord record;
  record.vg_uuid = request.facts.vg_uuid;
  record.pool_uuid = request.facts.pool_uuid;
  record.lv_uuid = request.facts.snapshot_lv_uuid;
  record.device_id = snapshot.id;
  record.transaction_id = snapshot.transaction_id;
  record.creation_time = snapshot.creation_time;
  record.snapshotted_time = snapshot.snapshotted_time;
  record.mapped_blocks = snapshot.mapped_blocks;
  record.pool_time = view.superblock().time;
  record.pool_transaction_id = view.superblock().transaction_id;
  record.data_block_sectors = view.superblock().data_block_sectors;
  record.device_size = request.snapshot_size;
  record.external_origin = request.facts.snapshot_external_origin;
  return record;
}

absl::StatusOr<GuardedDelta> ComputeDelta(PoolView& view,
                                          const DeltaRequest& request) {
  SNAPSYNC_RETURN_IF_ERROR(CheckPool(view.superblock(), view.status()));
  SNAPSYNC_RETURN_IF_ERROR(CheckSnapshot(request.facts));
  SNAPSYNC_ASSIGN_OR_RETURN(const ThinDevice snapshot,
                            view.RequireDevice(request.snapshot_id));
  std::optional<ThinDevice> base;
  DeltaSizes sizes;
  sizes.snapshot = request.snapshot_size;
  if (request.base) {
    SNAPSYNC_ASSIGN_OR_RETURN(base, view.FindDevice(request.base->device_id));
    SNAPSYNC_RETURN_IF_ERROR(
        CheckBase(*request.base, view.superblock(), request.facts, base));
    sizes.base = request.base->device_size;
  }
  SNAPSYNC_ASSIGN_OR_RETURN(TreeDelta compared,
                            CompareDevices(view, base, snapshot, sizes));
  if (base) {
    if (BaseNeedsWholeWalk(*base) && !compared.base.whole) {
      SNAPSYNC_ASSIGN_OR_RETURN(compared.base, WalkDevice(view, *base));
    }
    SNAPSYNC_RETURN_IF_ERROR(CheckBaseFrozen(*base, compared.base));
  }
  SNAPSYNC_RETURN_IF_ERROR(CheckSnapshotFrozen(snapshot, compared.snapshot));
  GuardedDelta result{std::move(compared.delta),
                      RecordOf(view, snapshot, request),
                      PoolWarnings(view.superblock())};
  result.delta.metadata_blocks_read = view.metadata_blocks_read();
  return result;
}

}  // namespace snapsync
