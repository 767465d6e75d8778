// SPDX-License-Identifier: Apache-2.0
#include "common/base/error.h"
#include "common/lvm/lvm.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace snapsync {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::NotNull;

// As LVM 2.03.16 prints it: a volume, a generation snapshot that skips
// activation, a stage whose merge was put off, the pool and its parts.
constexpr char kReport[] = R"({
      "report": [
          {
              "lv": [
                  {"vg_name":"vg", "vg_uuid":"ocjkdl-Gxap-TAg3-Fe5r-ih1m-lp2G-pyVwiK", "lv_name":"dst", "lv_uuid":"tZQKQW-HmZW-xkV0-yqr6-Ay14-pBmO-Pd9hXu", "lv_dm_path":"/dev/mapper/vg-dst", "lv_attr":"Owi-aotz--", "lv_active":"active", "lv_size":"268435456", "lv_skip_activation":"", "lv_merging":"", "lv_tags":"", "pool_lv":"tp", "pool_lv_uuid":"f8tPDd-o9Uh-r9gK-1yV2-jb69-vbNz-vOwxsv", "origin":"", "segtype":"thin", "thin_id":"1", "transaction_id":"0", "chunk_size":"0"},
                  {"vg_name":"vg", "vg_uuid":"ocjkdl-Gxap-TAg3-Fe5r-ih1m-lp2G-pyVwiK", "lv_name":"dst.g1", "lv_uuid":"rkvdNd-e1uj-e4ye-MUOc-ceN6-YQ4r-yYnAlu", "lv_dm_path":"/dev/mapper/vg-dst.g1", "lv_attr":"Vri---tz-k", "lv_active":"", "lv_size":"268435456", "lv_skip_activation":"skip activation", "lv_merging":"", "lv_tags":"snapsync,x", "pool_lv":"tp", "pool_lv_uuid":"f8tPDd-o9Uh-r9gK-1yV2-jb69-vbNz-vOwxsv", "origin":"dst", "segtype":"thin", "thin_id":"3", "transaction_id":"2", "chunk_size":"0"},
                  {"vg_name":"vg", "vg_uuid":"ocjkdl-Gxap-TAg3-Fe5r-ih1m-lp2G-pyVwiK", "lv_name":"[dst.stage]", "lv_uuid":"j59VCV-hb7Y-G3ui-Irm0-S5X3-ZgoP-nJutvJ", "lv_dm_path":"/dev/mapper/vg-dst.stage", "lv_attr":"Swi-a-tz--", "lv_active":"active", "lv_size":"268435456", "lv_skip_activation":"", "lv_merging":"merging", "lv_tags":"snapsync", "pool_lv":"tp", "pool_lv_uuid":"f8tPDd-o9Uh-r9gK-1yV2-jb69-vbNz-vOwxsv", "origin":"dst", "segtype":"thin", "thin_id":"6", "transaction_id":"8", "chunk_size":"0"},
                  {"vg_name":"vg", "vg_uuid":"ocjkdl-Gxap-TAg3-Fe5r-ih1m-lp2G-pyVwiK", "lv_name":"tp", "lv_uuid":"f8tPDd-o9Uh-r9gK-1yV2-jb69-vbNz-vOwxsv", "lv_dm_path":"/dev/mapper/vg-tp", "lv_attr":"twi-aotz--", "lv_active":"active", "lv_size":"419430400", "lv_skip_activation":"", "lv_merging":"", "lv_tags":"", "pool_lv":"", "pool_lv_uuid":"", "origin":"", "segtype":"thin-pool", "thin_id":"", "transaction_id":"4", "chunk_size":"65536"},
                  {"vg_name":"vg", "vg_uuid":"ocjkdl-Gxap-TAg3-Fe5r-ih1m-lp2G-pyVwiK", "lv_name":"[tp_tmeta]", "lv_uuid":"SFKhev-drW8-O4Lz-ugB8-2uNn-Jm82-qSrHV8", "lv_dm_path":"/dev/mapper/vg-tp_tmeta", "lv_attr":"ewi-ao----", "lv_active":"active", "lv_size":"4194304", "lv_skip_activation":"", "lv_merging":"", "lv_tags":"", "pool_lv":"", "pool_lv_uuid":"", "origin":"", "segtype":"linear", "thin_id":"", "transaction_id":"", "chunk_size":"0"}
              ]
          }
      ]
  }
)";

std::string Replaced(const std::string& from, const std::string& to) {
  std::string text = kReport;
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(VolumeReport, OutputThatIsNotTheReportIsRefused) {
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[]"), std::string("{}"),
        std::string(R"({"report":[]})"), std::string(R"({"report":[{}]})"),
        std::string(R"({"report":[{"lv":[1]}]})"),
        std::string(R"({"report":[{"lv":[{}]}]})"),
        Replaced("\"lv_size\":\"268435456\"", "\"lv_size\":\"1.5g\""),
        Replaced("\"lv_size\":\"268435456\"", "\"lv_size\":268435456"),
        Replaced("\"thin_id\":\"1\"", "\"thin_id\":\"16777216\""),
        Replaced("\"thin_id\":\"1\"", "\"thin_id\":\"-1\""),
        Replaced("Owi-aotz--", "O"), Replaced(" \"lv_tags\":\"\",", ""),
        Replaced("\"vg_name\":\"vg\"", "\"vg_name\":\"other\"")}) {
    const auto group = ParseVolumeReport("vg", text);
    ASSERT_FALSE(group.ok()) << text;
    EXPECT_EQ(ReasonOf(group.status()), Reason::kIo);
  }
}

TEST(VolumeReport, TheErrorNamesGroupAndField) {
  const auto group = ParseVolumeReport(
      "vg", Replaced("\"thin_id\":\"1\"", "\"thin_id\":\"x\""));
  ASSERT_FALSE(group.ok());
  EXPECT_THAT(std::string(MessageOf(group.status())),
              ::testing::AllOf(HasSubstr("group vg"), HasSubstr("thin_id")));
}

TEST(VolumeReport, ThinVolumesHaveTheirIdsAndPool) {
  const auto group = ParseVolumeReport("vg", kReport);
  ASSERT_TRUE(group.ok()) << group.status();
  const LogicalVolume* volume = group->FindName("dst");
  ASSERT_THAT(volume, NotNull());
  EXPECT_EQ(volume->thin_id, 1U);
  EXPECT_EQ(volume->pool, "tp");
  EXPECT_EQ(volume->size, 268435456U);
  EXPECT_TRUE(volume->active);
  EXPECT_TRUE(volume->writable);
  EXPECT_EQ(volume->DeviceMapperUuid(),
            "LVM-ocjkdlGxapTAg3Fe5rih1mlp2GpyVwiK"
            "tZQKQWHmZWxkV0yqr6Ay14pBmOPd9hXu");
  EXPECT_EQ(group->FindThinId(volume->pool_uuid, 1), volume);
  EXPECT_EQ(group->FindThinId(volume->pool_uuid, 2), nullptr);
  EXPECT_EQ(group->FindUuid(volume->uuid), volume);
}

TEST(VolumeReport, AGenerationSnapshotIsReadOnlyInactiveAndTagged) {
  const auto group = ParseVolumeReport("vg", kReport);
  ASSERT_TRUE(group.ok()) << group.status();
  const LogicalVolume* volume = group->FindName("dst.g1");
  ASSERT_THAT(volume, NotNull());
  EXPECT_FALSE(volume->active);
  EXPECT_FALSE(volume->writable);
  EXPECT_TRUE(volume->skips_activation);
  EXPECT_THAT(volume->tags, ElementsAre("snapsync", "x"));
  EXPECT_TRUE(volume->HasTag("x"));
  EXPECT_FALSE(volume->HasTag("snap"));
  EXPECT_EQ(volume->origin, "dst");
}

TEST(VolumeReport, AMergeThatWasPutOffShows) {
  const auto group = ParseVolumeReport("vg", kReport);
  ASSERT_TRUE(group.ok()) << group.status();
  const LogicalVolume* volume = group->FindName("dst.stage");
  ASSERT_THAT(volume, NotNull());
  EXPECT_TRUE(volume->merging);
  EXPECT_TRUE(volume->hidden);
}

TEST(VolumePath, GroupAndNameAreFoundInEachForm) {
  const LogicalVolumeName plain{"vg1", "vol"};
  for (const char* path : {"/dev/vg1/vol", "vg1/vol", "/dev/mapper/vg1-vol"}) {
    const auto name = ParseVolumePath(path);
    ASSERT_TRUE(name.ok()) << name.status();
    EXPECT_EQ(*name, plain) << path;
  }
  const auto dashes = ParseVolumePath("/dev/mapper/vg--a-vol--b--c");
  ASSERT_TRUE(dashes.ok()) << dashes.status();
  EXPECT_EQ(*dashes, (LogicalVolumeName{"vg-a", "vol-b-c"}));
}

TEST(VolumePath, WhatCanNotBeAVolumeIsRefused) {
  for (const char* path :
       {"", "/", "vol", "/dev/vol", "/dev/mapper/vol", "/dev/mapper/a-b-tpool",
        "/dev/disk/by-id/x", "/dev/vg/..", "../vol", "/dev/vg/-f", "-f/vol",
        "vg/a b", "vg/x;y", "vg/pool_tmeta", "/dev/null", "vg/",
        "/dev/mapper/../vg"}) {
    const auto name = ParseVolumePath(path);
    EXPECT_FALSE(name.ok()) << path;
    if (!name.ok()) {
      EXPECT_EQ(ReasonOf(name.status()), Reason::kTargetUnsuitable) << path;
    }
  }
}

TEST(VolumeName, OnlyWhatLvmTakes) {
  EXPECT_TRUE(IsValidVolumeName("a.stage"));
  EXPECT_TRUE(IsValidVolumeName("A+_.-9"));
  EXPECT_TRUE(IsValidVolumeName(std::string(127, 'a')));
  EXPECT_FALSE(IsValidVolumeName(std::string(128, 'a')));
  EXPECT_FALSE(IsValidVolumeName(""));
  EXPECT_FALSE(IsValidVolumeName("-a"));
  EXPECT_FALSE(IsValidVolumeName("a/b"));
  EXPECT_FALSE(IsValidVolumeName("\xc3\xa4"));
  EXPECT_FALSE(IsValidVolumeName("snapshot1"));
  EXPECT_FALSE(IsValidVolumeName("a_tdata"));
}

TEST(OrphanThinId, IsFoundInLvmsWords) {
  EXPECT_EQ(
      OrphanThinIdIn("  Thin pool vg-tp-tpool already contain thin device "
                     "with device_id 12."),
      12U);
  EXPECT_EQ(OrphanThinIdIn("  Failed to find logical volume"), std::nullopt);
  EXPECT_EQ(OrphanThinIdIn("already contain thin device with device_id x"),
            std::nullopt);
}

}  // namespace
}  // namespace snapsync
