// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/machine.h"

#include <cstdio>

#include "common/base/error.h"

namespace snapsync::simulation {

void Counters::Add(const Counters& other) {
  steps += other.steps;
  power_cuts += other.power_cuts;
  kills += other.kills;
  disk_errors += other.disk_errors;
  broken_calls += other.broken_calls;
  lost_replies += other.lost_replies;
  corruptions += other.corruptions;
  senders_killed += other.senders_killed;
  foreign_writes += other.foreign_writes;
  late_chunks += other.late_chunks;
  fenced += other.fenced;
  runs += other.runs;
  segments += other.segments;
  resumed += other.resumed;
  superseded += other.superseded;
  compared += other.compared;
  adopted += other.adopted;
  refused += other.refused;
  committed_before += other.committed_before;
  generations += other.generations;
}

std::string Counters::ToString() const {
  std::string text;
  const auto add = [&text](uint64_t count, const char* what) {
    if (!text.empty()) text += ", ";
    text += std::to_string(count) + " " + what;
  };
  add(steps, "steps");
  add(generations, "generations committed");
  add(runs, "runs of the sender");
  add(segments, "segments");
  add(resumed, "resumed");
  add(superseded, "superseded");
  add(compared, "compared by hash");
  add(adopted, "adopted");
  add(committed_before, "found committed");
  add(refused, "refused");
  add(power_cuts, "power cuts");
  add(kills, "agents killed");
  add(senders_killed, "senders killed");
  add(disk_errors, "disk errors");
  add(broken_calls, "broken calls");
  add(lost_replies, "lost replies");
  add(corruptions, "corrupted chunks");
  add(late_chunks, "late chunks");
  add(fenced, "fenced segments");
  add(foreign_writes, "foreign writes");
  return text;
}

void Machine::Boot() {
  ++boot_;
  up_ = true;
  if (tracing()) Trace("boot " + std::to_string(boot_));
}

absl::Status Machine::Dead() const {
  return Error(Reason::kIo, "simulated: this agent is dead");
}

absl::Status Machine::Point(uint64_t boot, std::string_view when,
                            std::string_view what) {
  if (!up_ || boot != boot_) return Dead();
  ++counters.steps;
  if (tracing()) Trace(std::string(when) + " " + std::string(what));
  if (Happens(&FaultRates::power_cut)) {
    CutPower();
    return Dead();
  }
  if (Happens(&FaultRates::kill)) {
    Kill();
    return Dead();
  }
  return absl::OkStatus();
}

absl::Status Machine::Before(uint64_t boot, std::string_view what) {
  return Point(boot, "before", what);
}

absl::Status Machine::After(uint64_t boot, std::string_view what) {
  if (on_step_) on_step_();
  return Point(boot, "after", what);
}

bool Machine::DiskFails(std::string_view what) {
  if (!Happens(&FaultRates::disk_error)) return false;
  ++counters.disk_errors;
  if (tracing()) Trace("FAULT: failed " + std::string(what));
  return true;
}

bool Machine::Happens(double FaultRates::*rate) {
  if (rates.left <= 0 || !random_->Percent(rates.*rate)) return false;
  --rates.left;
  return true;
}

void Machine::CutPower() {
  ++counters.power_cuts;
  Trace("FAULT: power cut");
  up_ = false;
  for (const auto& action : on_power_cut_) action();
}

void Machine::Kill() {
  ++counters.kills;
  Trace("FAULT: agent killed");
  up_ = false;
}

void Machine::Violate(const std::string& what) {
  Trace("VIOLATION: " + what);
  if (violation_.empty()) violation_ = what;
}

void Machine::Trace(std::string_view line) const {
  if (trace_) {
    std::fprintf(stderr, "  %.*s\n", static_cast<int>(line.size()),
                 line.data());
  }
}

}  // namespace snapsync::simulation
