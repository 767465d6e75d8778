// SPDX-License-Identifier: Apache-2.0
#include "common/base/id128.h"

#include <set>

#include "gtest/gtest.h"

namespace snapsync {
namespace {

TEST(Id128, RandomOnesAreNeverNoneAndNeverTheSame) {
  std::set<Id128> ids;
  for (int i = 0; i < 1000; ++i) {
    const Id128 id = Id128::Random();
    EXPECT_FALSE(id.none());
    EXPECT_TRUE(ids.insert(id).second);
  }
}

TEST(Id128, TheTextComesBack) {
  const Id128 id = Id128::Random();
  EXPECT_EQ(id.ToString().size(), 32U);
  EXPECT_EQ(Id128::Parse(id.ToString()), id);
  EXPECT_EQ(Id128{}.ToString(), "00000000000000000000000000000000");
  EXPECT_TRUE(Id128::Parse(Id128{}.ToString())->none());
}

TEST(Id128, TheShortTextIsItsBeginning) {
  const Id128 id = Id128::Random();
  EXPECT_EQ(id.Short(), id.ToString().substr(0, 8));
  EXPECT_EQ(Id128{}.Short(), "none");
}

TEST(Id128, AnythingButThirtyTwoDigitsIsRefused) {
  EXPECT_FALSE(Id128::Parse("").has_value());
  EXPECT_FALSE(Id128::Parse(std::string(31, '0')).has_value());
  EXPECT_FALSE(Id128::Parse(std::string(33, '0')).has_value());
  EXPECT_FALSE(Id128::Parse(std::string(32, 'x')).has_value());
  EXPECT_FALSE(Id128::Parse(std::string(32, 'A')).has_value());
}

}  // namespace
}  // namespace snapsync
