// SPDX-License-Identifier: Apache-2.0
//
// What must hold at any moment of a history, and the knowledge to check it:
// the contents of each generation, and what the sender was told.
//
//   - The volume holds one generation exactly, the one that its record names;
//     or the record is COMMITTING towards it; or the volume is written in place
//     and the record says TORN.
//   - A stage becomes the volume only when it holds the new generation exactly,
//     and the commit was asked to prove the base again.
//   - What the journal promises, or the sender heard, is in the stage, even if
//     every cache were lost now.
//   - A commit of which the sender heard stays.
//
// Used by one thread at a time.
#ifndef SNAPSYNC_TESTS_SIMULATION_ORACLE_H_
#define SNAPSYNC_TESTS_SIMULATION_ORACLE_H_

#include <map>
#include <memory>
#include <string>

#include "common/base/id128.h"
#include "common/transfer/plan.h"
#include "common/transfer/session_protocol.h"
#include "tests/simulation/machine.h"
#include "tests/simulation/store.h"
#include "tests/simulation/volume.h"
#include "tests/testing/sparse_image.h"

namespace snapsync::simulation {

// A snapshot of the source, and how it is sent.
struct Generation {
  Id128 id;
  Id128 base;
  SparseImage image;
  std::unique_ptr<Plan> plan;
  bool covers_all = false;
  bool allow_overwrite = false;
};

class Oracle {
 public:
  Oracle(Machine* machine, const StateDirectory* directory, Volume* volume);

  // The generation must outlive the oracle.
  void Know(const Generation* generation) {
    generations_[generation->id] = generation;
  }
  // The volume was written to by somebody else.
  void StrangerWrote();
  // The sender heard that chunks [0, watermark) are durable, or of a commit.
  void HeardOfWatermark(uint64_t watermark);
  void HeardOfCommit(const Id128& generation, uint64_t number);

  // The generation that the volume holds; none before the first.
  const Id128& held() const { return held_; }
  bool stranger_wrote() const { return stranger_wrote_; }

  // Cheap while nothing changes.
  void CheckVolume();
  // As if all caches were lost now.
  void CheckDurable();

 private:
  void BeforeSwitch(const std::string& base_seal);
  void Adopt(const SessionRecord& session);
  const Generation* Find(const Id128& id) const;

  Machine* const machine_;
  const StateDirectory* const directory_;
  Volume* const volume_;
  std::map<Id128, const Generation*> generations_;

  SparseImage expected_;  // of the volume, unless it is torn
  Id128 held_;
  bool stranger_wrote_ = false;
  Id128 heard_session_;  // SessionRecord::id
  uint64_t heard_watermark_ = 0;
  Receipt heard_receipt_;

  // What was checked last.
  const Disk* checked_disk_ = nullptr;
  uint64_t checked_disk_changes_ = 0;
  uint64_t checked_record_changes_ = 0;
};

}  // namespace snapsync::simulation

#endif  // SNAPSYNC_TESTS_SIMULATION_ORACLE_H_
