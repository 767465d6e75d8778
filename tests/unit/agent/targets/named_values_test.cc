// SPDX-License-Identifier: Apache-2.0
#include "agent/targets/named_values.h"

#include "common/base/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace snapsync {
namespace {

TEST(NamedValues, WhatIsNotOfTheKindAndFormProvesNothing) {
  for (const char* text : {"", " ", "seal", "stage x", "stage =1", "\n"}) {
    const auto values = NamedValues::Parse("stage", text);
    ASSERT_FALSE(values.ok()) << text;
    EXPECT_EQ(ReasonOf(values.status()), Reason::kBaseMismatch);
  }
}

TEST(NamedValues, ComeBackAsTheyWere) {
  const std::string text = NamedValues("stage")
                               .Set("id", 18446744073709551615ULL)
                               .Set("name", "a=b")
                               .ToString();
  EXPECT_EQ(text, "stage id=18446744073709551615 name=a=b");
  const auto values = NamedValues::Parse("stage", text);
  ASSERT_TRUE(values.ok()) << values.status();
  EXPECT_EQ(values->Number("id"), 18446744073709551615ULL);
  EXPECT_EQ(values->Text("name"), "a=b");
}

TEST(NamedValues, WhatIsMissingOrNoNumberIsZero) {
  const auto values = NamedValues::Parse("stage", "stage id=x");
  ASSERT_TRUE(values.ok()) << values.status();
  EXPECT_EQ(values->Number("id"), 0U);
  EXPECT_EQ(values->Number("other"), 0U);
  EXPECT_EQ(values->Text("other"), "");
}

}  // namespace
}  // namespace snapsync
