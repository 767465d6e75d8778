// SPDX-License-Identifier: Apache-2.0
//
// The agent's state directory, simulated: a record that is replaced as a whole,
// and a journal on a disk with a volatile cache. A replaced record can be read
// before it is durable (a rename before the flush of the folder); when Save()
// or Load() returned OK it is.
//
// Used by one thread at a time.
#ifndef SNAPSYNC_TESTS_SIMULATION_STORE_H_
#define SNAPSYNC_TESTS_SIMULATION_STORE_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "agent/session_store.h"
#include "tests/simulation/disk.h"
#include "tests/simulation/machine.h"

namespace snapsync::simulation {

// What is in the directory. Outlives the agents.
class StateDirectory {
 public:
  StateDirectory(Machine* machine, SectorPool* pool);

  const TargetRecord& record() const { return record_; }
  const std::shared_ptr<Disk>& journal() const { return journal_; }
  // Grows with each change of the record.
  uint64_t changes() const { return changes_; }
  // The watermark that would be found for `session` if all caches were lost
  // now. Knows the format by docs/formats.md, not by the code under test.
  uint64_t DurableWatermark(const Id128& session) const;

  // The target was switched (for Lie::kRecordAfterSwitch).
  void TargetSwitched();

 private:
  friend class SimulatedStore;
  void Put(const TargetRecord& record);
  void MakeDurable();
  void LosePower();

  Machine* const machine_;
  const std::shared_ptr<Disk> journal_;
  const bool through_text_;
  TargetRecord record_;
  bool exists_ = false;
  uint64_t changes_ = 0;
  TargetRecord durable_record_;
  std::optional<TargetRecord> withheld_;  // for Lie::kRecordAfterSwitch
};

// The port, of the boot in which it is made.
class SimulatedStore final : public SessionStore {
 public:
  // `flush_stage` is for Lie::kStageFlushAfterJournal.
  SimulatedStore(StateDirectory* directory, Machine* machine,
                 std::function<void()> flush_stage)
      : directory_(directory),
        machine_(machine),
        flush_stage_(std::move(flush_stage)),
        boot_(machine->boot()) {}

  absl::StatusOr<std::optional<TargetRecord>> Load(
      const std::string& volume) override;
  absl::Status Save(const std::string& volume,
                    const TargetRecord& record) override;
  absl::StatusOr<std::unique_ptr<Journal>> OpenJournal(
      const std::string& volume, const Id128& id) override;

 private:
  StateDirectory* const directory_;
  Machine* const machine_;
  const std::function<void()> flush_stage_;
  const uint64_t boot_;
};

}  // namespace snapsync::simulation

#endif  // SNAPSYNC_TESTS_SIMULATION_STORE_H_
