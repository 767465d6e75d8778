// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/history.h"

#include <array>
#include <chrono>
#include <memory>

#include "common/base/error.h"
#include "common/base/units.h"
#include "sender/hash_delta.h"
#include "sender/pump.h"
#include "tests/simulation/agent.h"
#include "tests/simulation/network.h"
#include "tests/simulation/oracle.h"
#include "tests/simulation/source.h"
#include "tests/simulation/store.h"
#include "tests/simulation/volume.h"

namespace snapsync::simulation {
namespace {

// Comparing reads every block, and most volumes have too many.
constexpr uint64_t kMaxComparedBytes = 16 * kMiB;

class History {
 public:
  History(uint64_t seed, Lie lie, bool trace)
      : random_(seed),
        machine_(&random_, lie, trace),
        source_(&random_, &pool_),
        directory_(&machine_, &pool_),
        volume_(source_.size(), random_.Percent(35), &machine_, &pool_),
        oracle_(&machine_, &directory_, FillVolume()),
        agent_(&machine_, &directory_, &volume_, &oracle_) {
    machine_.OnStep([this] { oracle_.CheckVolume(); });
    volume_.OnSwitched([this] { directory_.TargetSwitched(); });
  }

  Outcome Run() {
    for (uint64_t round = random_.Between(1, 4); round > 0; --round) {
      source_.Change();
      SendNextGeneration();
      if (!machine_.violation().empty()) break;
    }
    return {machine_.violation(), machine_.counters};
  }

 private:
  // One in five volumes holds something before the first sync.
  Volume* FillVolume() {
    if (random_.Percent(20)) {
      SparseImage image;
      image.Set(source_.SomeSector(), source_.NewSector());
      volume_.visible()->Replace(image);
      was_blank_ = false;
    }
    return &volume_;
  }

  void SendNextGeneration() {
    const Generation* next = NewGeneration(random_.Percent(50));
    for (uint64_t i = random_.Below(5); i > 0; --i) {
      RollFaultRates();
      const absl::Status status = RunSender(*next);
      machine_.rates = FaultRates{};
      if (!machine_.violation().empty()) return;
      Meddle();
      if (status.ok()) return;
      // Its snapshot is gone, or what it is based on: another plan.
      if (IsRefusal(status) || random_.Percent(25)) {
        next = Supersede(IsRefusal(status), true);
      }
    }
    // Now everything works; what was left behind must not be in the way.
    for (int tries = 0; tries < 6; ++tries) {
      const absl::Status status = RunSender(*next);
      if (!machine_.violation().empty()) return;
      if (status.ok()) {
        if (directory_.record().state != TargetState::kAt ||
            directory_.record().generation != next->id) {
          machine_.Violate("the sender succeeded, the record says " +
                           std::string(NameOf(directory_.record().state)));
        }
        return;
      }
      if (ReasonOf(status) == Reason::kBusy) agent_.DropLateUploads();
      if (IsRefusal(status)) next = Supersede(true, false);
    }
    machine_.Violate("without faults, the sender does not succeed");
  }

  static bool IsRefusal(const absl::Status& status) {
    return ReasonOf(status) == Reason::kBaseMismatch ||
           ReasonOf(status) == Reason::kTargetUnsuitable;
  }

  bool TornByAnother(const Generation& generation) const {
    const TargetRecord& record = directory_.record();
    return record.state == TargetState::kTorn &&
           record.session->generation != generation.id;
  }

  const Generation* NewGeneration(bool covers_all) {
    const Generation* base = source_.Find(oracle_.held());
    return Add(source_.Snapshot(base, base == nullptr && covers_all));
  }

  const Generation* Add(const Generation* generation) {
    oracle_.Know(generation);
    return generation;
  }

  // `everything`: over what is there, as the operator agreed.
  const Generation* Supersede(bool everything, bool with_faults) {
    if (directory_.record().session.has_value()) {
      ++machine_.counters.superseded;
    }
    machine_.Trace("another plan");
    if (random_.Percent(50)) source_.Change();
    if (!everything) return NewGeneration(random_.Percent(50));
    allow_overwrite_ = true;
    if (source_.size() <= kMaxComparedBytes && random_.Percent(60)) {
      if (with_faults && random_.Percent(50)) RollFaultRates();
      const Generation* compared = Compare();
      machine_.rates = FaultRates{};
      if (compared != nullptr) return Add(compared);
    }
    return Add(source_.Snapshot(nullptr, true));
  }

  // A plan of what differs from what the volume holds. Null when that fails.
  const Generation* Compare() {
    const bool faultless = machine_.rates.left == 0;
    const bool torn = directory_.record().state == TargetState::kTorn;
    const bool blank = volume_.visible()->seen().sectors().empty();
    const bool had_late_uploads = agent_.has_late_uploads();
    Network network("alice", &machine_, &agent_, &oracle_, &clock_,
                    [this] { ActOutside(); });
    HashRequest request;
    request.volume = "volume";
    request.replication = "replication";
    request.source = "source";
    request.source_size = source_.size();
    request.allow_overwrite = true;
    absl::Status status;
    const Generation* compared =
        source_.SnapshotCompared([&](BlockReader& snapshot) {
          ExtentList all;
          all.Append({0, snapshot.size()});
          auto delta = CompareByHash(network, request, snapshot, all, false,
                                     [&network] { return network.killed(); });
          status = delta.status();
          return delta;
        });
    if (compared != nullptr) ++machine_.counters.compared;
    if (compared == nullptr && faultless && !torn && !blank &&
        !had_late_uploads) {
      machine_.Violate("comparing failed without cause: " + status.ToString());
    }
    return compared;
  }

  SessionRequest RequestFor(const Generation& generation) const {
    SessionRequest request;
    request.volume = "volume";
    request.replication = "replication";
    request.source = "source";
    request.base = generation.base;
    request.generation = generation.id;
    request.source_size = generation.plan->source_size();
    request.plan_digest = generation.plan->digest();
    request.chunk_count = generation.plan->chunk_count();
    request.covers_all = generation.covers_all;
    request.allow_overwrite = allow_overwrite_;
    return request;
  }

  // One process of the sender, from its start to its end.
  absl::Status RunSender(const Generation& generation) {
    const Counters before = machine_.counters;
    ++machine_.counters.runs;
    const bool was_held = oracle_.held() == generation.id;
    const bool had_late_uploads = agent_.has_late_uploads();
    const bool stranger = oracle_.stranger_wrote();
    Network network(random_.Percent(85) ? "alice" : "bob", &machine_, &agent_,
                    &oracle_, &clock_, [this] { ActOutside(); });
    const std::chrono::milliseconds chunk_time(
        static_cast<int64_t>(random_.Below(3000)));
    PumpOptions options;
    options.read_ahead = false;
    options.now = [this] { return clock_.now; };
    options.sleep = [this](std::chrono::nanoseconds time) {
      clock_.now += time;
    };
    options.interrupted = [&network] { return network.killed(); };
    options.progress = [this, chunk_time](const PumpProgress&) {
      clock_.now += chunk_time;
    };
    options.notice = [this](const std::string& line) { machine_.Trace(line); };
    SparseImageReader reader("source", source_.size(), &generation.image,
                             &pool_);
    if (machine_.tracing()) {
      machine_.Trace("run: " + std::to_string(generation.plan->chunk_count()) +
                     " chunks" + (generation.covers_all ? ", all" : ""));
    }
    const absl::StatusOr<PumpResult> result = Pump(
        network, RequestFor(generation), *generation.plan, reader, options);
    if (machine_.tracing()) {
      machine_.Trace("run ends: " + result.status().ToString());
    }
    if (result.ok()) {
      CheckSuccess(generation, *result, was_held);
    } else if (!network.killed()) {
      CheckFailure(generation, result.status(), network, before,
                   had_late_uploads, stranger);
    }
    return result.status();
  }

  void CheckSuccess(const Generation& generation, const PumpResult& result,
                    bool was_held) {
    if (result.was_committed) ++machine_.counters.committed_before;
    if (!result.was_committed || !was_held) ++machine_.counters.generations;
    if (was_held && !result.was_committed) {
      machine_.Violate("a generation was committed twice");
    }
    if (oracle_.held() != generation.id) {
      machine_.Violate(
          "the sender succeeded, the volume holds another "
          "generation");
    }
  }

  // A failure must have a reason that happened.
  void CheckFailure(const Generation& generation, const absl::Status& status,
                    const Network& network, const Counters& before,
                    bool had_late_uploads, bool stranger) {
    const Counters& now = machine_.counters;
    const uint64_t deaths =
        now.power_cuts + now.kills - before.power_cuts - before.kills;
    const uint64_t broken = now.broken_calls + now.lost_replies -
                            before.broken_calls - before.lost_replies;
    const uint64_t disk_errors = now.disk_errors - before.disk_errors;
    bool explained = false;
    switch (ReasonOf(status)) {
      case Reason::kConnection:
        explained = deaths + broken + disk_errors > 0;
        break;
      case Reason::kIo:
        explained = disk_errors > 0;
        break;
      case Reason::kOther:
      case Reason::kVerification:
        explained = network.corrupted();
        break;
      case Reason::kBusy:
        explained = had_late_uploads;
        break;
      case Reason::kBaseMismatch:
        ++machine_.counters.refused;
        explained = stranger || oracle_.stranger_wrote() ||
                    (TornByAnother(generation) && !generation.covers_all) ||
                    generation.base != oracle_.held() ||
                    (generation.base.none() && !was_blank_);
        break;
      case Reason::kTargetUnsuitable:
        ++machine_.counters.refused;
        explained = !allow_overwrite_ &&
                    (!was_blank_ || stranger || oracle_.stranger_wrote());
        break;
      default:
        break;
    }
    if (!explained) {
      machine_.Violate("the sender failed without cause: " + status.ToString());
    }
  }

  void RollFaultRates() {
    FaultRates& rates = machine_.rates;
    rates = FaultRates{};
    // There are ten times as many points at the disks as at the network.
    constexpr std::array<double, 4> kChances = {0, 1, 4, 12};
    const auto roll = [this, &kChances] {
      return kChances[random_.Below(kChances.size())];
    };
    rates.power_cut = roll() / 8;
    rates.kill = roll() / 16;
    rates.disk_error = roll() / 16;
    rates.broken_call = roll();
    rates.lost_reply = roll();
    rates.sender_killed = roll() / 4;
    rates.corruption = random_.Percent(20) ? roll() : 0;
    rates.foreign_write = random_.Percent(10) ? 2 : 0;
    rates.left = static_cast<int>(random_.Between(1, 8));
  }

  // What may happen at any call of the sender.
  void ActOutside() {
    // In place, what is torn cannot tell a stranger's writes from ours.
    if (volume_.in_place() && directory_.record().state != TargetState::kAt) {
      return;
    }
    if (machine_.Happens(&FaultRates::foreign_write)) WriteAsStranger();
  }

  void WriteAsStranger() {
    ++machine_.counters.foreign_writes;
    machine_.Trace("FAULT: a stranger writes to the volume");
    volume_.WriteAsStranger(source_.SomeSector(), source_.NewSector());
    oracle_.StrangerWrote();
  }

  // What may happen between two runs.
  void Meddle() {
    if (random_.Percent(5)) machine_.CutPower();
    if (random_.Percent(5)) machine_.Kill();
    if (random_.Percent(10)) TryWrongBase();
    if (random_.Percent(3)) {
      machine_.Trace("abort");
      const absl::Status status = agent_.replica().Abort("alice");
      if (!status.ok() && !IsRefusal(status) &&
          ReasonOf(status) != Reason::kBusy) {
        machine_.Violate("abort failed: " + status.ToString());
      }
    }
    if (random_.Percent(3) && (!volume_.in_place() ||
                               directory_.record().state == TargetState::kAt)) {
      WriteAsStranger();
    }
  }

  // A plan from a base that the volume does not hold must be refused, and must
  // not change anything.
  void TryWrongBase() {
    Replica& replica = agent_.replica();
    if (directory_.record().state == TargetState::kCommitting) return;
    machine_.Trace("wrong base");
    SessionRequest request;
    request.volume = "volume";
    request.replication = "replication";
    request.base = random_.Id();
    request.generation = random_.Id();
    request.source_size = source_.size();
    request.chunk_count = 1;
    request.allow_overwrite = random_.Percent(50);
    const uint64_t record_changes = directory_.changes();
    const uint64_t volume_changes = volume_.visible()->changes();
    const Disk* stage = volume_.stage().get();
    const uint64_t stage_changes = stage == nullptr ? 0 : stage->changes();
    const absl::Status status = replica.Open(request, "alice").status();
    if (status.ok()) machine_.Violate("a wrong base was accepted");
    if (ReasonOf(status) == Reason::kBusy) return;
    ++machine_.counters.refused;
    if (ReasonOf(status) != Reason::kBaseMismatch) {
      machine_.Violate("a wrong base was refused as: " + status.ToString());
    }
    if (directory_.changes() != record_changes ||
        volume_.visible()->changes() != volume_changes ||
        volume_.stage().get() != stage ||
        (stage != nullptr && stage->changes() != stage_changes)) {
      machine_.Violate("a refused session changed something");
    }
  }

  Random random_;
  SectorPool pool_;
  Machine machine_;
  Clock clock_;
  Source source_;
  StateDirectory directory_;
  bool was_blank_ = true;
  bool allow_overwrite_ = false;
  Volume volume_;
  Oracle oracle_;
  Agent agent_;
};

}  // namespace

Outcome RunHistory(uint64_t seed, Lie lie, bool trace) {
  return History(seed, lie, trace).Run();
}

}  // namespace snapsync::simulation
