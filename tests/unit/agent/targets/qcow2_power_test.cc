// SPDX-License-Identifier: Apache-2.0
//
// The power is cut between any two changes of an export, and whatever had not
// been flushed is lost in part: what is left is the generation before or the
// new one, or it is refused by every reader; and the session goes on from its
// last flush. QEMU is the judge of each state.
//
// SNAPSYNC_STATES=N judges N states instead of 500, SNAPSYNC_SEED=S others.
#include <cstdlib>
#include <iostream>
#include <optional>

#include "agent/targets/qcow2_target.h"
#include "common/base/status_macros.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/recording_folder.h"
#include "tests/unit/agent/targets/qcow2_fixture.h"

namespace snapsync {
namespace {

constexpr uint64_t kCluster = 4096;
constexpr uint64_t kDisk = 64 * kCluster + 1536;

uint64_t FromEnvironment(const char* name, uint64_t fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::strtoull(text, nullptr, 10);
}

struct Step {
  Extent extent;
  uint64_t seed = 0;  // of the bytes; 0: zeroes
};

// What a session sends, with a flush after each third step.
std::vector<Step> MakeSteps(Random& random, bool whole) {
  std::vector<Step> steps;
  if (whole) {
    for (uint64_t at = 0; at < kDisk; at += 5 * kCluster) {
      steps.push_back({{at, std::min(5 * kCluster, kDisk - at)},
                       random.Percent(25) ? 0 : random.Next()});
    }
  }
  for (int i = 0; i < 16; ++i) {
    const uint64_t first = random.Below(kDisk / 512);
    const uint64_t count = random.Between(
        1,
        std::min<uint64_t>(random.Percent(50) ? 6 : 80, kDisk / 512 - first));
    steps.push_back(
        {{first * 512, count * 512}, random.Percent(30) ? 0 : random.Next()});
  }
  return steps;
}

Bytes BytesOf(const Step& step) {
  Bytes bytes(step.extent.length);
  if (step.seed == 0) return bytes;
  Random random(step.seed);
  // Half of them can be compressed.
  if (step.seed % 2 == 0) {
    random.Fill(bytes);
  } else {
    std::fill(bytes.begin(), bytes.end(), static_cast<std::byte>(step.seed));
  }
  return bytes;
}

class PowerTest : public ::testing::Test {
 protected:
  PowerTest() {
    options_.replication = "power";
    options_.cluster_size = kCluster;
    options_.write_behind = false;
    options_.unix_seconds = [] { return 1800000000; };
  }

  std::unique_ptr<Target> In(const std::string& folder) const {
    return MakeQcow2Target(folder + "/a.qcow2", options_);
  }

  absl::Status Send(BlockWriter& writer, size_t from, size_t to) const {
    for (size_t i = from; i < to; ++i) {
      const Step& step = steps_[i];
      if (step.seed == 0) {
        SNAPSYNC_RETURN_IF_ERROR(writer.Zero(step.extent));
        continue;
      }
      const Bytes bytes = BytesOf(step);
      AlignedBuffer buffer(bytes.size());
      std::copy(bytes.begin(), bytes.end(), buffer.data());
      const WriteOperation write{step.extent.offset, buffer.span()};
      SNAPSYNC_RETURN_IF_ERROR(writer.Write({&write, 1}));
    }
    return absl::OkStatus();
  }

  // A generation on its way, as the agent knows it: how many steps were
  // promised when so many changes had been made.
  struct Session {
    std::string token;
    uint64_t number = 0;
    Id128 generation;
    bool from_base = false;
    size_t staged = 0;  // changes
    std::vector<std::pair<size_t, size_t>> promises;

    size_t PromisedAt(size_t changes) const {
      size_t steps = 0;
      for (const auto& [change, step] : promises) {
        if (change <= changes) steps = step;
      }
      return steps;
    }
  };

  // Sends it from step `from` on, and commits it.
  absl::Status Run(Target& target, Session& session, size_t from,
                   const Recording* recording) const {
    if (from < steps_.size()) {
      SNAPSYNC_ASSIGN_OR_RETURN(const auto writer,
                                target.OpenStage(session.token));
      while (from < steps_.size()) {
        const size_t to = std::min(from + 3, steps_.size());
        SNAPSYNC_RETURN_IF_ERROR(Send(*writer, from, to));
        SNAPSYNC_RETURN_IF_ERROR(writer->Flush());
        from = to;
        if (recording != nullptr) {
          session.promises.push_back({recording->size(), to});
        }
      }
    }
    return target.Commit(session.token, session.number, session.generation, "")
        .status();
  }
  // From the beginning.
  absl::Status RunAll(Target& target, Session& session,
                      const Recording* recording) const {
    SNAPSYNC_ASSIGN_OR_RETURN(session.token,
                              target.CreateStage(kDisk, session.from_base));
    if (recording != nullptr) session.staged = recording->size();
    return Run(target, session, 0, recording);
  }
  // After a cut behind `changes` of those that `session` speaks of.
  absl::Status GoOn(Target& target, Session session, size_t changes) const {
    if (changes < session.staged) return RunAll(target, session, nullptr);
    return Run(target, session, session.PromisedAt(changes), nullptr);
  }

  // A full generation that is there before.
  void CommitOld(const std::string& folder, uint64_t number) {
    Random random(seed_ + number);
    steps_ = MakeSteps(random, number == 1);
    Session session;
    session.number = number;
    session.generation = random.Id();
    session.from_base = number > 1;
    ASSERT_THAT(RunAll(*In(folder), session, nullptr), IsOk());
    Apply();
    contents_of_old_ = contents_;
  }
  void Apply() {
    contents_.resize(kDisk);
    for (const Step& step : steps_) {
      const Bytes bytes = BytesOf(step);
      std::copy(bytes.begin(), bytes.end(),
                contents_.begin() + static_cast<ptrdiff_t>(step.extent.offset));
    }
  }
  void Keep(const std::string& raw) const {
    WriteContents(raws_ / raw, {reinterpret_cast<const char*>(contents_.data()),
                                contents_.size()});
  }

  // Begins generation `number` over those before: what is sent, and what is to
  // come out.
  Session Begin(uint64_t number, bool from_base) {
    name_ = old_name_ = "a.qcow2";
    if (options_.chain) {
      name_ = "a.g" + std::to_string(number) + ".qcow2";
      old_name_ = "a.g" + std::to_string(number - 1) + ".qcow2";
    }
    Keep("old");
    if (!from_base) contents_.assign(kDisk, std::byte{0});
    Random random(seed_ * 1000 + number);
    steps_ = MakeSteps(random, !from_base);
    Apply();
    Keep("new");
    Session session;
    session.number = number;
    session.generation = random.Id();
    session.from_base = from_base;
    return session;
  }

  std::unique_ptr<Target> Recorded(const std::string& folder,
                                   Recording* recording) const {
    return MakeQcow2Target(
        folder + "/a.qcow2", options_,
        [=]() -> absl::StatusOr<std::unique_ptr<HostFolder>> {
          SNAPSYNC_ASSIGN_OR_RETURN(auto real, OpenHostFolder(folder));
          return recording->Wrap(std::move(real));
        });
  }

  // Records a generation.
  Session Record(uint64_t number, bool from_base) {
    Session session = Begin(number, from_base);
    recording_.emplace(folder_.path());
    EXPECT_THAT(
        RunAll(*Recorded(folder_.path(), &*recording_), session, &*recording_),
        IsOk());
    EXPECT_TRUE(HasContentsOf(folder_ / name_, raws_ / "new"));
    return session;
  }

  static double Loss(Random& random) {
    constexpr double kLosses[] = {0, 5, 50, 95, 100};
    return kLosses[random.Below(5)];
  }

  // Judges what a power cut leaves.
  void CutThePowerOf(uint64_t number, bool from_base, uint64_t states) {
    const Session session = Record(number, from_base);
    const Recording& recording = *recording_;
    states = FromEnvironment("SNAPSYNC_STATES", states);
    for (uint64_t state = 0; state < states && !HasFailure(); ++state) {
      Random random(seed_ + state);
      const size_t cut = PlaceOfCut(recording, random);
      const double loss = Loss(random);
      SCOPED_TRACE("state " + std::to_string(state) + ": cut after change " +
                   std::to_string(cut) + " of " +
                   std::to_string(recording.size()) + ", loss " +
                   std::to_string(loss) + " %");
      const TemporaryFolder crashed(TemporaryFolder::InMemory());
      recording.MakeCrashed(cut, loss, loss, random, crashed.path());
      JudgeGenerations(crashed.path(), cut == recording.size());
      if (random.Percent(25)) {
        JudgeGivingUp(crashed.path());
        continue;
      }
      // The same calls as the agent would make, with what it was told before.
      ASSERT_THAT(GoOn(*In(crashed.path()), session, cut), IsOk());
      ASSERT_TRUE(IsCleanImage(crashed / name_));
      ASSERT_TRUE(HasContentsOf(crashed / name_, raws_ / "new"));
    }
    Report();
  }

  // A flush fails: what it was for can be read, but is not on the disk and will
  // not come there. The session goes on in another writer, and then the power
  // is cut.
  void FailAFlushOf(uint64_t number, bool from_base, uint64_t states) {
    const Session session = Record(number, from_base);
    const Recording& recording = *recording_;
    std::vector<size_t> flushes;
    for (size_t i = 0; i < recording.size(); ++i) {
      if (recording.at(i).kind == FolderChange::Kind::kFlush) {
        flushes.push_back(i);
      }
    }
    states = FromEnvironment("SNAPSYNC_STATES", states);
    for (uint64_t state = 0; state < states && !HasFailure(); ++state) {
      Random random(seed_ + state);
      const size_t failed = flushes[random.Below(flushes.size())];
      const TemporaryFolder visible(TemporaryFolder::InMemory());
      const TemporaryFolder durable(TemporaryFolder::InMemory());
      recording.MakeCrashed(failed, 0, 0, random, visible.path());
      recording.MakeCrashed(failed, Loss(random), 0, random, durable.path());
      Recording second(visible.path(), durable.path());
      Session again = session;
      again.promises.clear();
      const size_t promised = session.PromisedAt(failed);
      const auto target = Recorded(visible.path(), &second);
      if (failed < session.staged) {
        ASSERT_THAT(RunAll(*target, again, &second), IsOk());
      } else {
        again.staged = 0;
        again.promises.push_back({0, promised});
        ASSERT_THAT(Run(*target, again, promised, &second), IsOk());
      }
      const size_t cut = PlaceOfCut(second, random);
      SCOPED_TRACE("state " + std::to_string(state) + ": flush " +
                   std::to_string(failed) + " failed, cut after change " +
                   std::to_string(cut) + " of " +
                   std::to_string(second.size()));
      const TemporaryFolder crashed(TemporaryFolder::InMemory());
      second.MakeCrashed(cut, Loss(random), 0, random, crashed.path());
      JudgeGenerations(crashed.path(), cut == second.size());
      ASSERT_THAT(GoOn(*In(crashed.path()), again, cut), IsOk());
      ASSERT_TRUE(IsCleanImage(crashed / name_));
      ASSERT_TRUE(HasContentsOf(crashed / name_, raws_ / "new"));
    }
    Report();
  }

  // Takes one flush away at a time: of the states that a power cut leaves from
  // there to the next one of the same file, one must break a promise. Not those
  // that save nothing, nor the last: a journal that comes back goes once more.
  void TakeFlushesAwayOf(uint64_t number, bool from_base) {
    using Kind = FolderChange::Kind;
    const Session session = Record(number, from_base);
    for (size_t flush = 0; flush < recording_->size(); ++flush) {
      const FolderChange& change = recording_->at(flush);
      if ((change.kind != Kind::kFlush && change.kind != Kind::kFlushFolder) ||
          flush + 1 == recording_->size() || recording_->SavesNothing(flush)) {
        continue;
      }
      size_t end = flush + 1;
      while (end < recording_->size() &&
             (recording_->at(end).kind != change.kind ||
              recording_->at(end).file != change.file)) {
        ++end;
      }
      Recording without = *recording_;
      without.TakeAway(flush);
      Random random(seed_ + flush);
      bool missed = false;
      for (int state = 0; state < 30 && !missed; ++state) {
        const size_t cut = random.Between(flush + 1, end);
        const double loss = Loss(random);
        const TemporaryFolder crashed(TemporaryFolder::InMemory());
        without.MakeCrashed(cut, loss, Loss(random), random, crashed.path());
        missed = BreaksAPromise(crashed.path(), session, cut);
      }
      EXPECT_TRUE(missed) << "flush " << flush << " of " << recording_->size()
                          << " changes can go";
      ++counts_.taken;
    }
    EXPECT_GE(counts_.taken, 10U);
  }

  bool BreaksAPromise(const std::string& folder, const Session& session,
                      size_t cut) const {
    const std::string path = folder + "/" + name_;
    const bool committed = cut == recording_->size();
    const bool has_old = !contents_of_old_.empty();
    const auto holds = [&](const char* raw) {
      return IsCleanImage(path) && HasContentsOf(path, raws_ / raw);
    };
    if (std::filesystem::exists(path)
            ? !holds("new") && (committed || !has_old || !holds("old"))
            : committed || has_old) {
      return true;
    }
    return !GoOn(*In(folder), session, cut).ok() || !holds("new");
  }

  void Report() const {
    std::cerr << "judged " << counts_.judged << " states: " << counts_.refused
              << " only an unfinished file, " << counts_.old << " old, "
              << counts_.renewed << " new, " << counts_.wrong
              << " valid but wrong\n";
    EXPECT_EQ(counts_.wrong, 0U);
  }

  // Anywhere, or right before or after something becomes durable or changes its
  // name; the commit, which comes last, more often.
  static size_t PlaceOfCut(const Recording& recording, Random& random) {
    if (random.Percent(40)) return random.Below(recording.size() + 1);
    std::vector<size_t> places;
    for (size_t i = 0; i < recording.size(); ++i) {
      const auto kind = recording.at(i).kind;
      if (kind == FolderChange::Kind::kFlush ||
          kind == FolderChange::Kind::kRename ||
          kind == FolderChange::Kind::kFlushFolder) {
        places.push_back(i);
      }
    }
    const size_t last = std::min<size_t>(places.size(), 6);
    const size_t chosen = random.Percent(50)
                              ? random.Below(places.size())
                              : places.size() - 1 - random.Below(last);
    return places[chosen] + random.Below(2);
  }

  // What is there reads as a whole generation, or not at all.
  void JudgeGenerations(const std::string& folder, bool committed) {
    ++counts_.judged;
    const bool has_old = !contents_of_old_.empty();
    const std::string path = folder + "/" + name_;
    if (std::filesystem::exists(path)) {
      EXPECT_TRUE(IsCleanImage(path));
      if (HasContentsOf(path, raws_ / "new")) {
        ++counts_.renewed;
      } else {
        EXPECT_FALSE(committed);
        const bool is_old =
            has_old && name_ == old_name_ && HasContentsOf(path, raws_ / "old");
        EXPECT_TRUE(is_old) << "valid but wrong";
        ++(is_old ? counts_.old : counts_.wrong);
      }
    } else {
      EXPECT_FALSE(committed);
      EXPECT_FALSE(has_old && name_ == old_name_);
      ++counts_.refused;
    }
    if (name_ != old_name_ && has_old) {
      EXPECT_TRUE(IsCleanImage(folder + "/" + old_name_));
      EXPECT_TRUE(HasContentsOf(folder + "/" + old_name_, raws_ / "old"));
    }
    // By the wrong name, but right all the same.
    const std::string part = folder + "/a.qcow2.part";
    if (std::filesystem::exists(part) && IsCleanImage(part)) {
      EXPECT_TRUE(HasContentsOf(part, raws_ / "new"));
    }
  }

  void JudgeGivingUp(const std::string& folder) {
    ASSERT_THAT(In(folder)->RemoveStage(""), IsOk());
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      const std::string left = entry.path().filename();
      EXPECT_THAT(left, ::testing::EndsWith(".qcow2"));
      EXPECT_TRUE(IsCleanImage(entry.path()));
      if (left != name_ && left != old_name_) continue;
      EXPECT_TRUE(HasContentsOf(entry.path(), raws_ / "new") ||
                  HasContentsOf(entry.path(), raws_ / "old"));
    }
  }

  struct Counts {
    uint64_t judged = 0, refused = 0, old = 0, renewed = 0, wrong = 0,
             taken = 0;
  };

  const uint64_t seed_ = FromEnvironment("SNAPSYNC_SEED", 1);
  const TemporaryFolder folder_{TemporaryFolder::InMemory()};
  const TemporaryFolder raws_{TemporaryFolder::InMemory()};
  Qcow2Options options_;
  std::optional<Recording> recording_;
  std::vector<Step> steps_;
  Bytes contents_;
  Bytes contents_of_old_;
  std::string name_;  // of the new generation
  std::string old_name_;
  Counts counts_;
};

TEST_F(PowerTest, ANewFileIsWholeOrRefused) { CutThePowerOf(1, false, 500); }

TEST_F(PowerTest, ANewFileInPlaceOfAnOldOneIsTheOldOneOrWhole) {
  CommitOld(folder_.path(), 1);
  CutThePowerOf(2, false, 150);
}

TEST_F(PowerTest, AnUpdatedFileIsTheOldGenerationOrTheNewOne) {
  CommitOld(folder_.path(), 1);
  CommitOld(folder_.path(), 2);
  CutThePowerOf(3, true, 500);
}

TEST_F(PowerTest, AFailedFlushOfANewFileIsNotBelieved) {
  FailAFlushOf(1, false, 150);
}

TEST_F(PowerTest, AFailedFlushOfAnUpdateIsNotBelieved) {
  CommitOld(folder_.path(), 1);
  FailAFlushOf(2, true, 150);
}

TEST_F(PowerTest, SoIsACompressedOne) {
  options_.compression = Qcow2Options::Compression::kZstd;
  CommitOld(folder_.path(), 1);
  CommitOld(folder_.path(), 2);
  CutThePowerOf(3, true, 150);
}

TEST_F(PowerTest, AnOverlayIsWholeOrRefused) {
  options_.chain = true;
  CommitOld(folder_.path(), 1);
  CommitOld(folder_.path(), 2);
  CutThePowerOf(3, true, 150);
}

TEST_F(PowerTest, EachFlushOfANewFileIsNeeded) { TakeFlushesAwayOf(1, false); }

TEST_F(PowerTest, EachFlushOfAnUpdateIsNeeded) {
  CommitOld(folder_.path(), 1);
  TakeFlushesAwayOf(2, true);
}

}  // namespace
}  // namespace snapsync
