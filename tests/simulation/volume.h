// SPDX-License-Identifier: Apache-2.0
//
// The simulated target: a volume that is written to a stage and switched in
// one step, or in place. Outlives the agents; a Target is a port to it.
//
// A switch makes nothing durable: what was not flushed in the stage is not
// flushed in the volume that it becomes.
//
// Used by one thread at a time.
#ifndef SNAPSYNC_TESTS_SIMULATION_VOLUME_H_
#define SNAPSYNC_TESTS_SIMULATION_VOLUME_H_

#include <functional>
#include <memory>
#include <string>

#include "agent/targets/target.h"
#include "tests/simulation/disk.h"
#include "tests/simulation/machine.h"

namespace snapsync::simulation {

class Volume {
 public:
  Volume(uint64_t size, bool in_place, Machine* machine, SectorPool* pool);

  uint64_t size() const { return size_; }
  bool in_place() const { return in_place_; }
  const std::shared_ptr<Disk>& visible() const { return visible_; }
  // Null when there is none; the volume itself when in_place().
  const std::shared_ptr<Disk>& stage() const {
    return in_place_ ? visible_ : stage_;
  }
  // The stage that `token` names is there.
  bool HasStage(const std::string& token) const;
  // Of the volume as it is now.
  std::string Seal() const;

  void WriteAsStranger(uint64_t sector, uint64_t number);
  // From now on, as if a sample were all that is looked at.
  void JudgeBySample() { by_sample_ = true; }

  // Told right before a stage becomes the volume.
  void OnSwitch(std::function<void(const std::string& base_seal)> action) {
    on_switch_ = std::move(action);
  }
  // Told right after it.
  void OnSwitched(std::function<void()> action) {
    on_switched_ = std::move(action);
  }

  std::unique_ptr<Target> Open();

 private:
  friend class SimulatedTarget;
  std::shared_ptr<Disk> MakeDisk(const std::string& name);

  const uint64_t size_;
  const bool in_place_;
  Machine* const machine_;
  SectorPool* const pool_;
  std::shared_ptr<Disk> visible_;
  std::shared_ptr<Disk> stage_;
  std::string stage_token_;
  std::string switched_token_;  // that the last switch was asked for with
  std::string switched_seal_;
  uint64_t tokens_ = 0;
  uint64_t stranger_writes_ = 0;
  bool by_sample_ = false;
  std::function<void(const std::string&)> on_switch_;
  std::function<void()> on_switched_;
};

}  // namespace snapsync::simulation

#endif  // SNAPSYNC_TESTS_SIMULATION_VOLUME_H_
