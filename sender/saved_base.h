// SPDX-License-Identifier: Apache-2.0
//
// What is kept of a base, on the operator's wish (--save-mappings), for a sync
// after its snapshot is gone: the snapshot's mappings, in a file, and in its
// pool a witness, an empty thin volume VOLUME.witness-XXXXXXXX that was made
// after the snapshot. While the witness is there, the pool was not set back to
// before the base (docs/delta.md, G9).
//
// Witnesses have the LVM tag "snapsync.witness=REPLICATION", by which those
// that are not needed any more are found. Functions without state; used by one
// thread at a time.
#ifndef SNAPSYNC_SENDER_SAVED_BASE_H_
#define SNAPSYNC_SENDER_SAVED_BASE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/id128.h"
#include "common/lvm/lvm.h"
#include "common/thin/base_record.h"
#include "common/thin/metadata_snapshot.h"
#include "sender/replication_state.h"

namespace snapsync {

// Saves the mappings of `volume`, whose record is `record` and which the target
// holds as `generation` now, under a new name in `store`. kBaseMismatch when
// it was written to since.
absl::StatusOr<SavedBase> SaveBase(const LogicalVolume& volume,
                                   const MetadataSource& metadata,
                                   const BaseRecord& record,
                                   const Id128& generation,
                                   const ReplicationStore& store);

// Removes what earlier syncs and interrupted ones saved: all of the
// replication but what `state` names.
absl::Status RemoveOtherSavedBases(const std::string& group,
                                   const ReplicationState& state,
                                   const ReplicationStore& store);

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_SAVED_BASE_H_
