// SPDX-License-Identifier: Apache-2.0
#include "common/base/toml_table.h"

#include "gtest/gtest.h"
#include "tests/testing/random.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync {
namespace {

// The error that reading `text` the way a program does ends with.
absl::Status Read(const std::string& text) {
  absl::StatusOr<TomlTable> root = TomlTable::Parse("a.toml", text);
  if (!root.ok()) return root.status();
  TomlTable agent = root->Table("agent");
  agent.String("name", "");
  agent.Integer("timeout", 0);
  agent.Size("limit", 0);
  agent.Strings("hosts");
  for (TomlTable& volume : root->Tables("volume")) volume.String("path", "");
  return root->Finish();
}

auto Refuses(const std::string& text) {
  return FailsWith(Reason::kConfiguration, text);
}

TEST(TomlTable, AnUnknownKeyIsRefusedWithItsLine) {
  EXPECT_THAT(Read("[agent]\nname = \"a\"\nnmae = \"b\"\n"),
              Refuses("a.toml, line 3: unknown key \"nmae\" in [agent]"));
  EXPECT_THAT(Read("[agnet]\n"), Refuses("line 1: unknown key \"agnet\""));
  EXPECT_THAT(Read("x = 1\n"), Refuses("unknown key \"x\""));
  EXPECT_THAT(Read("[[volume]]\npath = \"a\"\n[[volume]]\nkind = \"b\"\n"),
              Refuses("line 4: unknown key \"kind\" in [volume]"));
}

TEST(TomlTable, AWrongTypeIsRefusedWithItsLine) {
  EXPECT_THAT(Read("[agent]\nname = 5\n"), Refuses("line 2: \"name\""));
  EXPECT_THAT(Read("[agent]\ntimeout = \"5\"\n"), Refuses("\"timeout\""));
  EXPECT_THAT(Read("[agent]\ntimeout = 5.5\n"), Refuses("\"timeout\""));
  EXPECT_THAT(Read("[agent]\nlimit = -1\n"), Refuses("\"limit\""));
  EXPECT_THAT(Read("[agent]\nlimit = \"ten\"\n"), Refuses("\"limit\""));
  EXPECT_THAT(Read("[agent]\nhosts = \"a\"\n"), Refuses("\"hosts\""));
  EXPECT_THAT(Read("[agent]\nhosts = [\"a\", 1]\n"), Refuses("\"hosts\""));
  EXPECT_THAT(Read("agent = 1\n"), Refuses("agent"));
  EXPECT_THAT(Read("[volume]\npath = \"a\"\n"), Refuses("[[volume]]"));
}

TEST(TomlTable, TheFirstErrorIsTheOneReported) {
  EXPECT_THAT(Read("[agent]\nname = 5\ntimeout = \"5\"\nother = 1\n"),
              Refuses("line 2: \"name\""));
}

TEST(TomlTable, AFileThatIsNoTomlIsRefusedWithItsLine) {
  EXPECT_THAT(Read("[agent]\nname = a\n"), Refuses("a.toml, line 2"));
  EXPECT_THAT(Read("[agent\n"), Refuses("a.toml, line 1"));
}

TEST(TomlTable, AFileThatCantBeReadIsNamed) {
  EXPECT_THAT(TomlTable::ParseFile("/nonexistent/a.toml"),
              Refuses("/nonexistent/a.toml"));
}

TEST(TomlTable, AHeaderThatIsNoKeyIsRefused) {
  EXPECT_THAT(Read("[.a]\n"), Refuses("a.toml, line 1"));
  EXPECT_THAT(Read("[=]\n"), Refuses("a.toml, line 1"));
  EXPECT_THAT(Read("[[\"a\".]]\n"), Refuses("a.toml, line 1"));
}

TEST(TomlTable, RandomTextNeverCrashes) {
  Random random(1);
  const std::string alphabet = "[]=\"'\n a1.,{}#\\x";
  for (int i = 0; i < 20'000; ++i) {
    std::string text;
    for (uint64_t length = random.Below(60); length > 0; --length) {
      text += alphabet[random.Below(alphabet.size())];
    }
    const absl::Status status = Read(text);
    if (!status.ok()) {
      EXPECT_EQ(ReasonOf(status), Reason::kConfiguration);
    }
  }
}

TEST(TomlTable, ValuesComeBackAndMissingOnesAreTheFallback) {
  const TemporaryFolder folder;
  WriteContents(folder / "a.toml",
                "[agent]\nname = \"nas\"\ntimeout = 7\nlimit = \"10M\"\n"
                "plain = 512\nhosts = [\"a\", \"b\"]\n"
                "[[volume]]\npath = \"x\"\n[[volume]]\npath = \"y\"\n");
  absl::StatusOr<TomlTable> root = TomlTable::ParseFile(folder / "a.toml");
  ASSERT_THAT(root, IsOk());
  TomlTable agent = root->Table("agent");
  EXPECT_TRUE(agent.Has("name"));
  EXPECT_FALSE(agent.Has("other"));
  EXPECT_EQ(agent.String("name", "none"), "nas");
  EXPECT_EQ(agent.String("other", "none"), "none");
  EXPECT_EQ(agent.Integer("timeout", 1), 7);
  EXPECT_EQ(agent.Integer("other", 1), 1);
  EXPECT_EQ(agent.Size("limit", 1), uint64_t{10} << 20);
  EXPECT_EQ(agent.Size("plain", 1), 512U);
  EXPECT_EQ(agent.Size("other", 1), 1U);
  EXPECT_EQ(agent.Strings("hosts"), (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(agent.Strings("other").empty());
  std::vector<TomlTable> volumes = root->Tables("volume");
  ASSERT_EQ(volumes.size(), 2U);
  EXPECT_EQ(volumes[0].String("path", ""), "x");
  EXPECT_EQ(volumes[1].String("path", ""), "y");
  EXPECT_EQ(root->Table("missing").String("key", "none"), "none");
  EXPECT_TRUE(root->Tables("nothing").empty());
  EXPECT_THAT(root->Finish(), IsOk());
}

TEST(TomlTable, ARefusalOfTheCallerHasTheLineToo) {
  absl::StatusOr<TomlTable> root =
      TomlTable::Parse("a.toml", "[agent]\n\nname = \"\"\n");
  ASSERT_THAT(root, IsOk());
  TomlTable agent = root->Table("agent");
  agent.String("name", "");
  agent.Refuse("name", "is empty");
  EXPECT_THAT(root->Finish(),
              Refuses("a.toml, line 3: [agent] name: is empty"));
}

}  // namespace
}  // namespace snapsync
