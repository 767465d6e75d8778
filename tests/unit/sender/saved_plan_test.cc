// SPDX-License-Identifier: Apache-2.0
#include "sender/saved_plan.h"

#include <span>

#include "common/base/crc32c.h"
#include "common/base/endian.h"
#include "gtest/gtest.h"
#include "sender/replication_state.h"
#include "tests/testing/random.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync {
namespace {

constexpr uint64_t kSize = 1 << 20;

class SavedPlanTest : public testing::Test {
 protected:
  SavedPlan Some() {
    ExtentList changed;
    changed.Append({0, 4096});
    changed.Append({8192, 512});
    ExtentList gone;
    gone.Append({4096, 4096});
    return {random_.Id(), random_.Id(), Plan(kSize, changed, gone)};
  }
  // With 64-bit number `index` changed, and the checksum made right.
  static std::string Changed(std::string contents, size_t index,
                             uint64_t value) {
    auto* const bytes = reinterpret_cast<std::byte*>(contents.data());
    StoreLittle(bytes + 8 * index, value);
    const size_t body = contents.size() - 4;
    StoreLittle(bytes + body, Crc32c({bytes, body}));
    return contents;
  }

  Random random_{1};
};

TEST_F(SavedPlanTest, ComesBackAsItWas) {
  const SavedPlan saved = Some();
  const auto read = DecodePlan("f", EncodePlan(saved));
  ASSERT_THAT(read, IsOk());
  EXPECT_EQ(read->generation, saved.generation);
  EXPECT_EQ(read->base, saved.base);
  EXPECT_EQ(read->plan.digest(), saved.plan.digest());
}

TEST_F(SavedPlanTest, EveryDamagedByteIsFound) {
  const std::string good = EncodePlan(Some());
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 4);
    EXPECT_THAT(DecodePlan("f", bad), FailsWith(Reason::kIo, "f: ")) << i;
    EXPECT_THAT(DecodePlan("f", good.substr(0, i)),
                FailsWith(Reason::kIo, "f: "))
        << i;
  }
}

TEST_F(SavedPlanTest, WhatNoPlanCanHoldIsRefused) {
  const std::string good = EncodePlan(Some());
  const uint64_t version_2 = uint64_t{2} << 32 | 0x50534e53;
  EXPECT_THAT(DecodePlan("f", Changed(good, 0, version_2)),
              FailsWith(Reason::kIo, "version 2"));
  for (const uint64_t count : {uint64_t{1}, uint64_t{4}, ~uint64_t{0}}) {
    EXPECT_THAT(DecodePlan("f", Changed(good, 6, count)),
                FailsWith(Reason::kIo, "number of extents"));
  }
  EXPECT_THAT(DecodePlan("f", Changed(good, 9, ~uint64_t{0} - 511)),
              FailsWith(Reason::kIo, "extent 0"));
  EXPECT_THAT(DecodePlan("f", Changed(good, 8, 511)),
              FailsWith(Reason::kIo, "extent 0"));
  EXPECT_THAT(DecodePlan("f", Changed(good, 10, 1024)),
              FailsWith(Reason::kIo, "extent 1"));
  EXPECT_THAT(DecodePlan("f", Changed(good, 12, 2048)),
              FailsWith(Reason::kIo, "overlap"));
}

TEST_F(SavedPlanTest, IsKeptWithTheStateOfTheReplication) {
  const TemporaryFolder folder;
  const auto store = ReplicationStore::Open(folder.path(), "u", "nas2:vol");
  ASSERT_THAT(store, IsOk());
  EXPECT_THAT(store->LoadPlan(), FailsWith(Reason::kBaseMismatch, "hash.plan"));
  const SavedPlan saved = Some();
  ASSERT_THAT(store->SavePlan(saved), IsOk());
  const auto read = store->LoadPlan();
  ASSERT_THAT(read, IsOk());
  EXPECT_EQ(read->plan.digest(), saved.plan.digest());
  ReplicationState state;
  state.pending = PendingState{
      saved.generation, saved.base, false, "hash", true, {}, "snapshot 1"};
  ASSERT_THAT(store->Save(state), IsOk());
  EXPECT_EQ(store->Load()->pending->method, "hash");
  EXPECT_THAT(store->RemovePlan(), IsOk());
  EXPECT_THAT(store->RemovePlan(), IsOk());
  EXPECT_THAT(store->LoadPlan(), FailsWith(Reason::kBaseMismatch, "hash.plan"));
}

}  // namespace
}  // namespace snapsync
