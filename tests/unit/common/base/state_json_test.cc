// SPDX-License-Identifier: Apache-2.0
#include "common/base/state_json.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

namespace snapsync {
namespace {

using nlohmann::json;

template <typename T>
bool Reads(const char* text, T wanted) {
  T number = 0;
  ReadNumber(json::parse(text), number);
  return number == wanted;
}

template <typename T>
void ExpectRefused(const char* text) {
  T number = 0;
  EXPECT_THROW(ReadNumber(json::parse(text), number), json::exception) << text;
}

TEST(StateJson, ANumberIsReadToTheEndsOfItsRange) {
  EXPECT_TRUE(Reads<uint64_t>("18446744073709551615",
                              std::numeric_limits<uint64_t>::max()));
  EXPECT_TRUE(Reads<int64_t>("-9223372036854775808",
                             std::numeric_limits<int64_t>::min()));
  EXPECT_TRUE(
      Reads<uint32_t>("4294967295", std::numeric_limits<uint32_t>::max()));
}

TEST(StateJson, WhatIsNoNumberInTheRangeIsRefused) {
  for (const char* text : {"2e44", "1.0", "-1", "18446744073709551616", "\"1\"",
                           "true", "null", "[1]"}) {
    ExpectRefused<uint64_t>(text);
  }
  ExpectRefused<uint32_t>("4294967296");
  ExpectRefused<int64_t>("9223372036854775808");
}

TEST(StateJson, WhatIsNoIdIsRefused) {
  EXPECT_THROW(IdOf(json("12")), json::exception);
  EXPECT_THROW(IdOf(json(12)), json::exception);
}

}  // namespace
}  // namespace snapsync
