// SPDX-License-Identifier: Apache-2.0
#include "sender/pump.h"

#include <algorithm>
#include <deque>
#include <map>

#include "common/base/units.h"
#include "gtest/gtest.h"
#include "tests/testing/memory_device.h"
#include "tests/testing/random.h"
#include "tests/testing/sparse_image.h"
#include "tests/testing/status_matchers.h"

namespace snapsync {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr uint64_t kSize = 300 * kMiB;
constexpr uint64_t kStep = kMiB;  // chunk i is at i × kStep

// An agent that keeps what it is sent, and fails where it is told to.
class FakeAgent final : public AgentClient {
 public:
  // Return an error to fail the call before it has any effect.
  std::function<absl::Status()> on_open = [] { return absl::OkStatus(); };
  std::function<absl::Status()> on_start = [] { return absl::OkStatus(); };
  std::function<absl::Status(uint64_t chunk)> on_chunk = [](uint64_t) {
    return absl::OkStatus();
  };
  std::function<absl::Status()> on_commit = [] { return absl::OkStatus(); };
  // Changes what is answered.
  std::function<absl::StatusOr<SegmentAck>(SegmentAck)> answer =
      [](SegmentAck ack) { return ack; };
  bool end_segments_early = false;
  bool lose_commit_reply = false;
  bool committed = false;
  uint64_t watermark = 0;
  Digest256 digest{};
  Id128 generation;

  std::vector<uint64_t> received;  // chunk numbers
  std::vector<uint64_t> segments;  // how many chunks each had
  std::vector<std::string> events;
  size_t opens = 0;
  size_t open_streams = 0;
  size_t most_open_streams = 0;

  absl::StatusOr<VolumeState> Describe(const std::string&) override {
    return VolumeState{};
  }
  absl::StatusOr<SessionGrant> OpenSession(
      const SessionRequest& request) override {
    ++opens;
    if (absl::Status s = on_open(); !s.ok()) return s;
    generation = request.generation;
    SessionGrant grant;
    grant.watermark = watermark;
    grant.digest = digest;
    grant.committed = committed;
    grant.number = 7;
    return grant;
  }
  absl::StatusOr<std::unique_ptr<SegmentStream>> StartSegment(
      const std::string&, const Id128&, uint64_t first) override {
    if (absl::Status s = on_start(); !s.ok()) return s;
    return std::make_unique<Stream>(this, first);
  }
  absl::StatusOr<Receipt> CommitSession(const CommitRequest& request) override {
    events.push_back("commit");
    if (absl::Status s = on_commit(); !s.ok()) return s;
    if (request.chunk_count != watermark || request.digest != digest) {
      return Error(Reason::kVerification, "not what arrived");
    }
    committed = true;
    if (std::exchange(lose_commit_reply, false)) {
      return Error(Reason::kConnection, "lost");
    }
    return Receipt{generation, 7};
  }
  absl::StatusOr<Id128> HashBlocks(const HashRequest&,
                                   const HashSink&) override {
    return Error(Reason::kOther, "not asked for by the pump");
  }
  void Cancel() override {}

 private:
  class Stream final : public SegmentStream {
   public:
    Stream(FakeAgent* agent, uint64_t first) : agent_(agent), first_(first) {
      agent_->events.push_back("start " + std::to_string(first));
      agent_->most_open_streams =
          std::max(agent_->most_open_streams, ++agent_->open_streams);
    }
    ~Stream() override { --agent_->open_streams; }

    bool Write(const Chunk& chunk) override {
      EXPECT_EQ(chunk.index, first_ + checksums_.size());
      EXPECT_THAT(CheckChunk(chunk, kSize), IsOk());
      status_ = agent_->on_chunk(chunk.index);
      if (!status_.ok()) return false;
      if (std::exchange(agent_->end_segments_early, false)) return false;
      agent_->received.push_back(chunk.index);
      checksums_.push_back(chunk.checksum);
      return true;
    }
    void CloseWrites() override {
      agent_->events.push_back("close " + std::to_string(first_));
    }
    absl::StatusOr<SegmentAck> Finish() override {
      if (!status_.ok()) return status_;
      agent_->events.push_back("finish " + std::to_string(first_));
      EXPECT_EQ(agent_->watermark, first_);
      agent_->segments.push_back(checksums_.size());
      for (const Checksum128& checksum : checksums_) {
        agent_->digest = ExtendSessionDigest(agent_->digest, checksum);
      }
      agent_->watermark += checksums_.size();
      return agent_->answer({agent_->watermark, agent_->digest});
    }

   private:
    FakeAgent* const agent_;
    const uint64_t first_;
    std::vector<Checksum128> checksums_;
    absl::Status status_;
  };
};

class PumpTest : public testing::Test {
 protected:
  PumpTest() {
    request_.volume = "vol";
    request_.generation = random_.Id();
    options_.read_ahead = false;
    options_.now = [this] { return now_; };
    options_.sleep = [this](nanoseconds time) {
      now_ += time;
      slept_ += time;
    };
    options_.interrupted = [] { return false; };
    options_.progress = [this](const PumpProgress& progress) {
      progress_ = progress;
      now_ += chunk_time_;
    };
    options_.notice = [this](const std::string& line) {
      notices_.push_back(line);
    };
    SetPlan(10);
  }

  // `count` chunks, each a whole MiB of data, though few bytes of them are.
  void SetPlan(uint64_t count, uint64_t bytes = 512) {
    ExtentList gone;
    ExtentList changed;
    for (uint64_t i = 0; i < count; ++i) {
      changed.Append({i * kStep, kStep});
      for (uint64_t grain = 0; grain < kStep; grain += kZeroGrainBytes) {
        if (grain < bytes) {
          image_.Set((i * kStep + grain) / kSectorBytes, sector_);
        }
      }
    }
    plan_ = std::make_unique<Plan>(kSize, changed, gone);
    ASSERT_EQ(plan_->chunk_count(), count);
  }

  absl::StatusOr<PumpResult> Run() {
    return Pump(agent_, request_, *plan_, reader_, options_);
  }
  static absl::Status Lost() { return Error(Reason::kConnection, "lost"); }
  static std::vector<uint64_t> Numbers(uint64_t first, uint64_t end) {
    std::vector<uint64_t> numbers;
    for (; first < end; ++first) numbers.push_back(first);
    return numbers;
  }

  Random random_{1};
  SectorPool pool_;
  const uint64_t sector_ =
      pool_.NumberOf(std::vector<std::byte>(kSectorBytes, std::byte{1}));
  SparseImage image_;
  SparseImageReader reader_{"source", kSize, &image_, &pool_};
  FakeAgent agent_;
  SessionRequest request_;
  std::unique_ptr<Plan> plan_;
  PumpOptions options_;
  std::chrono::steady_clock::time_point now_{std::chrono::hours(1)};
  nanoseconds slept_{0};
  nanoseconds chunk_time_{0};
  PumpProgress progress_;
  std::vector<std::string> notices_;
};

TEST_F(PumpTest, WithoutProgressItGivesUpAfterTheTimeoutNotBefore) {
  agent_.on_chunk = [](uint64_t) { return Lost(); };
  EXPECT_THAT(Run(), FailsWith(Reason::kConnection, "lost"));
  EXPECT_LE(slept_, options_.retry_for);
  EXPECT_GT(slept_, options_.retry_for - seconds(15));
}

TEST_F(PumpTest, WithoutATimeoutItNeverGivesUp) {
  options_.retry_for = nanoseconds(0);
  int failures = 100;
  agent_.on_chunk = [&failures](uint64_t) {
    return failures-- > 0 ? Lost() : absl::OkStatus();
  };
  EXPECT_THAT(Run(), IsOk());
  EXPECT_GT(slept_, std::chrono::minutes(10));
}

TEST_F(PumpTest, ProgressStartsTheTimeoutAnew) {
  options_.retry_for = seconds(120);
  // Each attempt brings one segment of one chunk through, after long trouble.
  chunk_time_ = seconds(2);
  int chunks = 0;
  agent_.on_chunk = [&chunks](uint64_t) {
    return ++chunks % 15 == 0 || chunks % 15 == 1 ? absl::OkStatus() : Lost();
  };
  const auto result = Run();
  ASSERT_THAT(result, IsOk());
  EXPECT_GT(slept_, 2 * options_.retry_for);
}

// The answers are lost, but the agent's watermark moves.
TEST_F(PumpTest, ProgressThatOnlyTheNextOpeningShowsCounts) {
  SetPlan(100);
  chunk_time_ = seconds(10);
  agent_.answer = [](SegmentAck) { return Lost(); };
  ASSERT_THAT(Run(), IsOk());
  EXPECT_EQ(agent_.received.size(), 100U + 99U);
}

TEST_F(PumpTest, WhatTryingAgainCannotHelpIsReturnedAtOnce) {
  for (const Reason reason :
       {Reason::kOther, Reason::kPermission, Reason::kBaseMismatch,
        Reason::kBusy, Reason::kVerification, Reason::kTargetUnsuitable,
        Reason::kIo}) {
    agent_.opens = 0;
    agent_.on_open = [reason] { return Error(reason, "refused"); };
    EXPECT_THAT(Run(), FailsWith(reason, "refused"));
    EXPECT_EQ(agent_.opens, 1U);
  }
  EXPECT_EQ(slept_, nanoseconds(0));
}

TEST_F(PumpTest, ASourceThatCantBeReadIsNotTheNetwork) {
  const auto broken = std::make_shared<MemoryDevice>(0);
  MemoryReader reader(broken);
  EXPECT_THAT(Pump(agent_, request_, *plan_, reader, options_),
              FailsWith(Reason::kIo, "no such sectors"));
  EXPECT_EQ(agent_.opens, 1U);
}

TEST_F(PumpTest, AnotherDigestThanOurOwnStopsIt) {
  agent_.answer = [](SegmentAck ack) {
    ack.digest[0] ^= std::byte{1};
    return ack;
  };
  EXPECT_THAT(Run(), FailsWith(Reason::kVerification, "not the sender's"));
  EXPECT_EQ(agent_.opens, 1U);
  EXPECT_FALSE(agent_.committed);
}

TEST_F(PumpTest, AnotherWatermarkThanOurOwnStopsIt) {
  agent_.answer = [](SegmentAck ack) {
    ++ack.watermark;
    return ack;
  };
  EXPECT_THAT(Run(), FailsWith(Reason::kVerification, "at chunk 11"));
}

TEST_F(PumpTest, AWatermarkBeyondThePlanStopsIt) {
  agent_.watermark = 11;
  EXPECT_THAT(Run(), FailsWith(Reason::kOther, "11 chunks, the plan has 10"));
}

TEST_F(PumpTest, AnotherGenerationThanWasSentIsNoSuccess) {
  agent_.on_commit = [this] {
    agent_.generation = random_.Id();
    return absl::OkStatus();
  };
  EXPECT_THAT(Run(), FailsWith(Reason::kVerification, "another generation"));
}

TEST_F(PumpTest, AnInterruptionIsNotTriedAgain) {
  bool interrupted = false;
  options_.interrupted = [&interrupted] { return interrupted; };
  agent_.on_chunk = [&interrupted](uint64_t chunk) {
    interrupted = chunk == 4;
    return absl::OkStatus();
  };
  EXPECT_THAT(Run(), FailsWith(Reason::kConnection, "interrupted"));
  EXPECT_EQ(agent_.received, Numbers(0, 5));
  EXPECT_EQ(agent_.opens, 1U);
  EXPECT_FALSE(agent_.committed);
}

TEST_F(PumpTest, AnInterruptionWhileItWaitsEndsTheWait) {
  bool interrupted = false;
  options_.interrupted = [&interrupted] { return interrupted; };
  options_.sleep = [&interrupted](nanoseconds) { interrupted = true; };
  agent_.on_open = Lost;
  EXPECT_THAT(Run(), FailsWith(Reason::kConnection, "interrupted"));
  EXPECT_EQ(agent_.opens, 1U);
}

TEST_F(PumpTest, AllChunksAreSentOnceAndCommitted) {
  const auto result = Run();
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(agent_.received, Numbers(0, 10));
  EXPECT_TRUE(agent_.committed);
  EXPECT_EQ(result->receipt.generation, request_.generation);
  EXPECT_EQ(result->receipt.number, 7U);
  EXPECT_FALSE(result->was_committed);
  EXPECT_EQ(result->resumed_from_bytes, 0U);
  EXPECT_EQ(result->data_bytes, 10 * kZeroGrainBytes);
  EXPECT_EQ(result->zero_bytes, 10 * (kStep - kZeroGrainBytes));
  EXPECT_EQ(progress_.done_bytes, plan_->changed_bytes());
  EXPECT_EQ(progress_.total_bytes, plan_->changed_bytes());
  EXPECT_EQ(progress_.sent_bytes, result->data_bytes);
}

TEST_F(PumpTest, WhatIsGoneIsCountedApart) {
  ExtentList gone;
  gone.Append({0, 50 * kMiB});
  plan_ = std::make_unique<Plan>(kSize, ExtentList(), gone);
  const auto result = Run();
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(result->gone_bytes, 50 * kMiB);
  EXPECT_EQ(result->zero_bytes, 0U);
  EXPECT_EQ(result->data_bytes, 0U);
}

TEST_F(PumpTest, AfterALossItGoesOnAtTheWatermark) {
  chunk_time_ = milliseconds(600);  // two chunks a segment
  bool broken = false;
  agent_.on_chunk = [&broken](uint64_t chunk) {
    return chunk == 7 && !std::exchange(broken, true) ? Lost()
                                                      : absl::OkStatus();
  };
  const auto result = Run();
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(agent_.opens, 2U);
  // Nothing that the agent had acknowledged was sent again.
  std::vector<uint64_t> received = agent_.received;
  std::sort(received.begin(), received.end());
  received.erase(std::unique(received.begin(), received.end()), received.end());
  EXPECT_EQ(received, Numbers(0, 10));
  EXPECT_LE(agent_.received.size(), 14U);
  EXPECT_EQ(result->data_bytes, agent_.received.size() * kZeroGrainBytes);
  EXPECT_EQ(result->resumed_from_bytes, 0U);
  EXPECT_EQ(progress_.done_bytes, plan_->changed_bytes());
}

TEST_F(PumpTest, ANewRunGoesOnWhereAnEarlierOneEnded) {
  agent_.watermark = 4;
  const auto result = Run();
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(agent_.received, Numbers(4, 10));
  EXPECT_EQ(result->resumed_from_bytes, 4 * kStep);
  EXPECT_EQ(progress_.done_bytes, plan_->changed_bytes());
}

TEST_F(PumpTest, WhenAllIsThereOnlyTheCommitIsLeft) {
  agent_.watermark = 10;
  ASSERT_THAT(Run(), IsOk());
  EXPECT_THAT(agent_.received, IsEmpty());
  EXPECT_THAT(agent_.events, ElementsAre("commit"));
}

TEST_F(PumpTest, ALostReplyToTheCommitIsAskedForAgain) {
  agent_.lose_commit_reply = true;
  const auto result = Run();
  ASSERT_THAT(result, IsOk());
  EXPECT_TRUE(result->was_committed);
  EXPECT_EQ(result->receipt.generation, request_.generation);
  EXPECT_EQ(result->receipt.number, 7U);
  EXPECT_EQ(agent_.received, Numbers(0, 10));
}

TEST_F(PumpTest, ASegmentHasSixtyFourChunks) {
  SetPlan(150);
  ASSERT_THAT(Run(), IsOk());
  EXPECT_THAT(agent_.segments, ElementsAre(64, 64, 22));
}

TEST_F(PumpTest, ASlowSegmentEndsEarlier) {
  chunk_time_ = options_.segment_time / 2 + milliseconds(1);
  ASSERT_THAT(Run(), IsOk());
  EXPECT_THAT(agent_.segments, ElementsAre(2, 2, 2, 2, 2));
}

TEST_F(PumpTest, TheNextSegmentIsSentWhileTheLastOneIsFlushed) {
  SetPlan(192);
  ASSERT_THAT(Run(), IsOk());
  EXPECT_THAT(agent_.events,
              ElementsAre("start 0", "close 0", "start 64", "close 64",
                          "finish 0", "start 128", "close 128", "finish 64",
                          "finish 128", "commit"));
  EXPECT_LE(agent_.most_open_streams, 3U);
}

TEST_F(PumpTest, ASegmentThatCantBeStartedIsTriedAgain) {
  bool failed = false;
  agent_.on_start = [&failed] {
    return std::exchange(failed, true) ? absl::OkStatus() : Lost();
  };
  ASSERT_THAT(Run(), IsOk());
  EXPECT_EQ(agent_.opens, 2U);
}

TEST_F(PumpTest, ASegmentThatTheAgentEndsEarlyIsTriedAgain) {
  agent_.end_segments_early = true;
  ASSERT_THAT(Run(), IsOk());
  EXPECT_EQ(agent_.opens, 2U);
  EXPECT_THAT(notices_, ElementsAre(testing::HasSubstr("ended the segment")));
}

TEST_F(PumpTest, TheSpeedIsHeldToTheLimit) {
  SetPlan(100, kStep);  // a MiB of data each
  options_.bytes_per_second = 10 * kMiB;
  ASSERT_THAT(Run(), IsOk());
  EXPECT_GE(slept_, milliseconds(9500));
  EXPECT_LE(slept_, seconds(10));
}

TEST_F(PumpTest, PausesGrowAndShrinkAgainAfterProgress) {
  std::vector<nanoseconds> pauses;
  options_.sleep = [this, &pauses](nanoseconds time) {
    now_ += time;
    pauses.push_back(time);
  };
  chunk_time_ = seconds(2);                    // a chunk a segment
  std::deque<int> failures = {0, 1, 2, 3, 6};  // chunks sent in vain
  int sent = 0;
  agent_.on_chunk = [&failures, &sent](uint64_t) {
    if (!failures.empty() && sent++ == failures.front()) {
      failures.pop_front();
      return Lost();
    }
    return absl::OkStatus();
  };
  ASSERT_THAT(Run(), IsOk());
  ASSERT_EQ(pauses.size(), 5U);
  EXPECT_EQ(pauses[1], 2 * pauses[0]);
  EXPECT_EQ(pauses[2], 4 * pauses[0]);
  EXPECT_EQ(pauses[3], 8 * pauses[0]);
  EXPECT_EQ(pauses[4], pauses[0]);
}

}  // namespace
}  // namespace snapsync
