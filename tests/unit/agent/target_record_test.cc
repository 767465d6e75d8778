// SPDX-License-Identifier: Apache-2.0
#include "agent/target_record.h"

#include "common/base/state_file.h"
#include "gtest/gtest.h"
#include "tests/testing/random.h"
#include "tests/testing/status_matchers.h"

namespace snapsync {
namespace {

constexpr size_t kHeaderLine = 1;  // lines before the body

Digest256 RandomDigest(Random& random) {
  Digest256 digest;
  random.Fill(digest);
  return digest;
}

TargetRecord FullRecord() {
  Random random(1);
  TargetRecord record;
  record.identity = "LVM-abc";
  record.state = TargetState::kFilling;
  record.replication = "nightly \"vm\" \\ \n\x01";
  record.generation = random.Id();
  record.number = UINT64_MAX;
  record.seal = "seal";
  SessionRecord session;
  session.id = random.Id();
  session.base = record.generation;
  session.generation = random.Id();
  session.replication = record.replication;
  session.source = "nas1:/dev/vg/vol";
  session.owner = "nas1";
  session.source_size = uint64_t{1} << 63;
  session.plan_digest = RandomDigest(random);
  session.chunk_count = 12345;
  session.verified = true;
  session.stage = "stage";
  record.session = session;
  for (size_t i = 0; i < TargetRecord::kGenerationsKept; ++i) {
    record.generations.push_back({random.Id(), i, i * 512, RandomDigest(random),
                                  -static_cast<int64_t>(i), i % 2 == 0});
  }
  return record;
}

absl::StatusOr<TargetRecord> Decode(const std::string& contents) {
  return DecodeTargetRecord("a/vol.state", contents);
}

// The contents with a part of the body replaced, and the checksum right again.
std::string Replaced(const std::string& contents, const std::string& from,
                     const std::string& to) {
  std::string body = contents.substr(contents.find('\n') + kHeaderLine);
  const size_t at = body.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  body.replace(at, from.size(), to);
  return EncodeState("target", 1, body);
}

TEST(TargetRecord, AnEmptyOneComesBack) {
  const auto back = Decode(EncodeTargetRecord(TargetRecord{}));
  ASSERT_THAT(back, IsOk());
  EXPECT_EQ(back->state, TargetState::kEmpty);
  EXPECT_TRUE(back->generation.none());
  EXPECT_FALSE(back->session.has_value());
}

TEST(TargetRecord, EveryFieldComesBack) {
  const TargetRecord record = FullRecord();
  const auto back = Decode(EncodeTargetRecord(record));
  ASSERT_THAT(back, IsOk());
  EXPECT_EQ(back->identity, record.identity);
  EXPECT_EQ(back->state, record.state);
  EXPECT_EQ(back->replication, record.replication);
  EXPECT_EQ(back->generation, record.generation);
  EXPECT_EQ(back->number, record.number);
  EXPECT_EQ(back->seal, record.seal);
  ASSERT_TRUE(back->session.has_value());
  EXPECT_EQ(back->session->id, record.session->id);
  EXPECT_EQ(back->session->base, record.session->base);
  EXPECT_EQ(back->session->generation, record.session->generation);
  EXPECT_EQ(back->session->replication, record.session->replication);
  EXPECT_EQ(back->session->source, record.session->source);
  EXPECT_EQ(back->session->owner, record.session->owner);
  EXPECT_EQ(back->session->source_size, record.session->source_size);
  EXPECT_EQ(back->session->plan_digest, record.session->plan_digest);
  EXPECT_EQ(back->session->chunk_count, record.session->chunk_count);
  EXPECT_EQ(back->session->stage, record.session->stage);
  ASSERT_EQ(back->generations.size(), record.generations.size());
  for (size_t i = 0; i < record.generations.size(); ++i) {
    const GenerationRecord& a = back->generations[i];
    const GenerationRecord& b = record.generations[i];
    EXPECT_EQ(a.generation, b.generation);
    EXPECT_EQ(a.number, b.number);
    EXPECT_EQ(a.source_size, b.source_size);
    EXPECT_EQ(a.plan_digest, b.plan_digest);
    EXPECT_EQ(a.committed_unix_seconds, b.committed_unix_seconds);
  }
}

TEST(TargetRecord, EachStateComesBack) {
  TargetRecord record = FullRecord();
  for (const TargetState state :
       {TargetState::kFilling, TargetState::kTorn, TargetState::kCommitting}) {
    record.state = state;
    const auto back = Decode(EncodeTargetRecord(record));
    ASSERT_THAT(back, IsOk());
    EXPECT_EQ(back->state, state);
  }
  record.session.reset();
  for (const TargetState state : {TargetState::kEmpty, TargetState::kAt}) {
    record.state = state;
    const auto back = Decode(EncodeTargetRecord(record));
    ASSERT_THAT(back, IsOk());
    EXPECT_EQ(back->state, state);
  }
}

TEST(TargetRecord, ASessionThatTheStateContradictsIsRefused) {
  TargetRecord record = FullRecord();
  for (const TargetState state : {TargetState::kEmpty, TargetState::kAt}) {
    record.state = state;
    EXPECT_THAT(Decode(EncodeTargetRecord(record)),
                FailsWith(Reason::kIo, "contradict"));
  }
  record.session.reset();
  for (const TargetState state :
       {TargetState::kFilling, TargetState::kTorn, TargetState::kCommitting}) {
    record.state = state;
    EXPECT_THAT(Decode(EncodeTargetRecord(record)),
                FailsWith(Reason::kIo, "contradict"));
  }
}

TEST(TargetRecord, AFieldThatIsMissingOrWrongIsRefusedWithThePath) {
  const std::string good = EncodeTargetRecord(FullRecord());
  const std::pair<const char*, const char*> replacements[] = {
      {"\"identity\"", "\"identiti\""},
      {"\"filling\"", "\"flying\""},
      {"\"state\": \"filling\"", "\"state\": 3"},
      {"\"seal\": \"seal\"", "\"seal\": null"},
      {"\"source_size\": 9223372036854775808", "\"source_size\": \"x\""},
      {"\"generations\": [", "\"generations\": [1, "},
      {"\"session\": {", "\"session\": [{}], \"other\": {"},
      {"\"plan_digest\": \"", "\"plan_digest\": \"z"},
      {"\"id\": \"", "\"id\": \"0"},
      {"{", ""},
      {"{", "[{"},
  };
  for (const auto& [from, to] : replacements) {
    EXPECT_THAT(Decode(Replaced(good, from, to)),
                FailsWith(Reason::kIo, "a/vol.state"))
        << from << " by " << to;
  }
}

TEST(TargetRecord, EveryDamagedByteIsFound) {
  const std::string good = EncodeTargetRecord(FullRecord());
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ (1 << (i % 8)));
    ASSERT_THAT(Decode(bad), FailsWith(Reason::kIo, "a/vol.state")) << i;
  }
}

// With a right checksum: a file written by a program with a fault.
TEST(TargetRecord, ADamagedBodyWithARightChecksumNeverCrashes) {
  Random random(1);
  const std::string good = EncodeTargetRecord(FullRecord());
  const std::string body = good.substr(good.find('\n') + kHeaderLine);
  for (int i = 0; i < 5000; ++i) {
    std::string bad = body;
    for (uint64_t n = random.Between(1, 4); n > 0; --n) {
      const size_t at = random.Below(bad.size());
      switch (random.Below(4)) {
        case 0:
          bad[at] = static_cast<char>(random.Below(256));
          break;
        case 1:
          bad.erase(at, random.Below(20));
          break;
        case 2:
          bad.insert(at,
                     bad.substr(random.Below(bad.size()), random.Below(100)));
          break;
        default:
          bad.insert(at, std::string(random.Below(50), "[{\"9-"[at % 5]));
          break;
      }
    }
    const auto record = Decode(EncodeState("target", 1, bad));
    if (!record.ok()) {
      EXPECT_EQ(ReasonOf(record.status()), Reason::kIo);
    }
  }
  // Deeply nested.
  EXPECT_FALSE(
      Decode(EncodeState("target", 1, std::string(1'000'000, '['))).ok());
}

}  // namespace
}  // namespace snapsync
