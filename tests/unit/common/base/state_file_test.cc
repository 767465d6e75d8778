// SPDX-License-Identifier: Apache-2.0
#include "common/base/state_file.h"

#include "gtest/gtest.h"
#include "tests/testing/random.h"
#include "tests/testing/status_matchers.h"

namespace snapsync {
namespace {

TEST(StateFile, SomethingElseIsRefusedWithThePath) {
  for (const std::string& contents :
       {std::string(), std::string("{}"), std::string("\n"),
        std::string(200, 'x') + "\n", std::string("\0\0\n", 3)}) {
    EXPECT_THAT(DecodeState("target", 1, "a/b.state", contents),
                FailsWith(Reason::kIo, "a/b.state"));
  }
}

TEST(StateFile, AnotherKindOrVersionIsNamed) {
  EXPECT_THAT(DecodeState("target", 1, "x", EncodeState("base", 1, "{}")),
              FailsWith(Reason::kIo, "expected target version 1"));
  EXPECT_THAT(DecodeState("target", 1, "x", EncodeState("target", 2, "{}")),
              FailsWith(Reason::kIo, "expected target version 1"));
}

TEST(StateFile, EveryDamagedByteIsFound) {
  const std::string good = EncodeState("target", 1, "{\"a\": \"text\"}\n");
  for (size_t i = 0; i < good.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      EXPECT_THAT(DecodeState("target", 1, "x", bad),
                  FailsWith(Reason::kIo, "x: "))
          << i;
    }
  }
}

TEST(StateFile, ACutOrLengthenedFileIsFound) {
  const std::string good = EncodeState("target", 1, "{\"a\": \"text\"}\n");
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(DecodeState("target", 1, "x", good.substr(0, size)).ok());
  }
  EXPECT_FALSE(DecodeState("target", 1, "x", good + "\n").ok());
}

TEST(StateFile, RandomBytesAreRefused) {
  Random random(1);
  for (int i = 0; i < 10'000; ++i) {
    std::string bytes(random.Below(200), '\0');
    random.Fill(std::as_writable_bytes(std::span(bytes)));
    if (random.Percent(50)) bytes.insert(0, "snapsync target 1 ");
    EXPECT_FALSE(DecodeState("target", 1, "x", bytes).ok());
  }
}

TEST(StateFile, TheBodyComesBack) {
  for (const std::string& body :
       {std::string(), std::string("{}"), std::string("a\0b\n\n", 5)}) {
    const auto back =
        DecodeState("target", 1, "x", EncodeState("target", 1, body));
    ASSERT_THAT(back, IsOk());
    EXPECT_EQ(*back, body);
  }
}

}  // namespace
}  // namespace snapsync
