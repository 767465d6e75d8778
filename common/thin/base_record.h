// SPDX-License-Identifier: Apache-2.0
//
// What is remembered of a snapshot when it was synced, so that it can be proven
// to be the same one when it is the base of the next delta.
#ifndef SNAPSYNC_COMMON_THIN_BASE_RECORD_H_
#define SNAPSYNC_COMMON_THIN_BASE_RECORD_H_

#include <cstdint>
#include <string>

namespace snapsync {

struct BaseRecord {
  // As LVM knows them; empty for a plain device-mapper pool and for files.
  std::string vg_uuid;
  std::string pool_uuid;
  std::string lv_uuid;

  uint32_t device_id = 0;
  uint64_t transaction_id = 0;
  uint32_t creation_time = 0;  // 0: not recorded
  uint32_t snapshotted_time = 0;
  uint64_t mapped_blocks = 0;

  uint32_t pool_time = 0;
  uint64_t pool_transaction_id = 0;
  uint32_t data_block_sectors = 0;

  uint64_t device_size = 0;  // bytes
  bool external_origin = false;

  friend bool operator==(const BaseRecord&, const BaseRecord&) = default;
};

// A logical volume that was made after a base, or the base itself. While it is
// there, the base was made in this history of the pool, not in one that was
// set back since (docs/delta.md, G9).
struct WitnessRecord {
  std::string lv_uuid;
  uint32_t device_id = 0;
  uint64_t transaction_id = 0;
  uint32_t creation_time = 0;

  friend bool operator==(const WitnessRecord&, const WitnessRecord&) = default;
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_THIN_BASE_RECORD_H_
