// SPDX-License-Identifier: Apache-2.0
#include "agent/tickets.h"

#include "gtest/gtest.h"

namespace snapsync {
namespace {

class TicketsTest : public testing::Test {
 protected:
  bool Check(const std::string& ticket, const std::string& peer = "nas2",
             const std::string& volume = "vol", const Id128& generation = {}) {
    return tickets_.Check(ticket, peer, volume, generation, now_);
  }
  Tickets tickets_;
  Tickets::Time now_{std::chrono::hours(1)};
};

TEST_F(TicketsTest, IsForOneNodeAndOneVolume) {
  const std::string ticket = tickets_.Issue("nas2", "vol", now_);
  EXPECT_EQ(ticket.size(), 32U);
  EXPECT_TRUE(Check(ticket));
  EXPECT_FALSE(Check(ticket, "nas3"));
  EXPECT_FALSE(Check(ticket, "nas2", "other"));
  EXPECT_FALSE(Check(""));
  EXPECT_FALSE(Check(std::string(32, 'x')));
}

TEST_F(TicketsTest, IsVoidWhenNotUsed) {
  const std::string ticket = tickets_.Issue("nas2", "vol", now_);
  now_ += Tickets::kIdle;
  EXPECT_TRUE(Check(ticket));
  now_ += Tickets::kIdle;
  EXPECT_TRUE(Check(ticket));
  now_ += Tickets::kIdle + std::chrono::seconds(1);
  EXPECT_FALSE(Check(ticket));
}

TEST_F(TicketsTest, AfterTheCommitOnlyItsReceiptCanBeAskedFor) {
  const std::string ticket = tickets_.Issue("nas2", "vol", now_);
  const Id128 committed = Id128::Random();
  tickets_.Spend(ticket, committed);
  EXPECT_TRUE(Check(ticket, "nas2", "vol", committed));
  EXPECT_FALSE(Check(ticket, "nas2", "vol", Id128::Random()));
  EXPECT_FALSE(Check(ticket));
}

TEST_F(TicketsTest, ManyAreForgottenTheOldestFirst) {
  const std::string first = tickets_.Issue("nas2", "vol", now_);
  std::string last;
  for (size_t i = 0; i < Tickets::kMost; ++i) {
    now_ += std::chrono::milliseconds(1);
    last = tickets_.Issue("nas2", "vol", now_);
  }
  EXPECT_FALSE(Check(first));
  EXPECT_TRUE(Check(last));
}

}  // namespace
}  // namespace snapsync
