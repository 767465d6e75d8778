// SPDX-License-Identifier: Apache-2.0
#include "sender/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "common/base/error.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;

// Words are separated by spaces.
absl::StatusOr<Command> Parse(const std::string& line) {
  std::istringstream stream(line);
  std::vector<std::string> words = {"snapsync-send"};
  for (std::string word; stream >> word;) words.push_back(word);
  std::vector<const char*> arguments;
  arguments.reserve(words.size());
  for (const std::string& word : words) arguments.push_back(word.c_str());
  return ParseCommandLine(static_cast<int>(arguments.size()), arguments.data());
}

SyncCommand ParseSync(const std::string& line) {
  absl::StatusOr<Command> command = Parse(line);
  EXPECT_THAT(command, IsOk());
  if (!command.ok() || !std::holds_alternative<SyncCommand>(*command)) {
    ADD_FAILURE() << "not a sync: " << line;
    return {};
  }
  return std::get<SyncCommand>(*command);
}

std::string Refusal(const std::string& line) {
  const absl::StatusOr<Command> command = Parse(line);
  if (command.ok()) return "accepted";
  EXPECT_EQ(ReasonOf(command.status()), Reason::kUsage);
  return std::string(MessageOf(command.status()));
}

constexpr char kSync[] = "sync --src /dev/vg1/v --uuid u --dst nas2:v";

TEST(Options, AMistypedFlagIsRefused) {
  EXPECT_THAT(Refusal(std::string(kSync) + " --speedlimit 1M"),
              HasSubstr("speedlimit"));
}

TEST(Options, AResumeOffsetThatIsNoNumberIsRefused) {
  EXPECT_THAT(Refusal(std::string(kSync) + " --resume soon"),
              HasSubstr("soon"));
}

TEST(Options, TheNewCommandTakesPort22Literally) {
  EXPECT_EQ(ParseSync(std::string(kSync) + " --port 22").config.port, 22);
}

TEST(Options, HowLongItIsTriedIsOneThingAndHowLongACallTakesAnother) {
  const SyncCommand plain = ParseSync(std::string(kSync) + " --timeout 30");
  EXPECT_EQ(plain.config.timeout_seconds, 30U);
  EXPECT_EQ(plain.sync.pump.retry_for, std::chrono::minutes(10));
  EXPECT_EQ(plain.sync.pump.connect_for, std::chrono::seconds(10));
  for (const int seconds : {0, 5, 3600}) {
    const SyncCommand command = ParseSync(std::string(kSync) + " --retry-for " +
                                          std::to_string(seconds));
    EXPECT_EQ(command.sync.pump.retry_for, std::chrono::seconds(seconds));
    EXPECT_EQ(command.sync.pump.connect_for, std::chrono::seconds(seconds));
  }
}

TEST(Options, APathIsALocalTarget) {
  const SyncCommand command =
      ParseSync("sync --src /dev/vg1/v --uuid u --dst /nonexistent/image");
  EXPECT_TRUE(command.destination.local());
  EXPECT_EQ(command.destination.volume, "/nonexistent/image");
}

TEST(Options, AnInactiveVolumeHasOneName) {
  const std::string name = "/dev/mapper/no--vg-some--lv";
  EXPECT_EQ(StablePath("/dev/no-vg/some-lv"), name);
  EXPECT_EQ(StablePath(name), name);
}

// The lines as they stand in scripts, but for the program's name.
constexpr char kRemote[] =
    "master --port 22 --meta /dev/mapper/vg1-tp1_tmeta --id 4 --src "
    "/dev/mapper/vg1-snap30001 --dst admin@192.168.80.88:/dev/mapper/thin "
    "--uuid 1 --encrypt";

TEST(OldCommandLine, ARemoteSyncMeansWhatItMeant) {
  const SyncCommand command = ParseSync(kRemote);
  EXPECT_EQ(command.config.port, kDefaultPort);
  EXPECT_EQ(command.sync.source.meta, "/dev/mapper/vg1-tp1_tmeta");
  EXPECT_EQ(command.sync.source.id, 4U);
  EXPECT_EQ(command.sync.source.path, "/dev/mapper/vg1-snap30001");
  EXPECT_EQ(command.destination.host, "192.168.80.88");
  EXPECT_EQ(command.destination.user, "admin");
  EXPECT_EQ(command.sync.volume, "/dev/mapper/thin");
  EXPECT_EQ(command.sync.replication, "1");
  EXPECT_THAT(command.warnings, Contains(HasSubstr("--port 22")));
  EXPECT_THAT(command.warnings, Contains(HasSubstr("admin")));
}

TEST(OldCommandLine, ALocalSyncMeansWhatItMeant) {
  const SyncCommand command = ParseSync(
      "master --port 22 --meta /dev/mapper/vg1-tp1_tmeta --id 4 "
      "--src=/dev/mapper/vg1-snap30001 --dst /dev/mapper/thin --uuid 1 "
      "--encrypt");
  EXPECT_TRUE(command.destination.local());
  EXPECT_EQ(command.sync.volume, "/dev/mapper/thin");
  EXPECT_THAT(command.warnings, Contains(HasSubstr("--encrypt")));
}

TEST(OldCommandLine, TheOptionalFlagsMeanWhatTheyMeant) {
  const SyncCommand command =
      ParseSync(std::string(kRemote) +
                "=aes-256-cbc --timeout 30 --speed-limit 10M --resume 1048576");
  EXPECT_EQ(command.sync.pump.retry_for, std::chrono::seconds(30));
  EXPECT_EQ(command.sync.pump.bytes_per_second, 10 * kMiB);
  EXPECT_EQ(command.sync.pump.resume_from_bytes, kMiB);
  EXPECT_THAT(command.warnings, Contains(HasSubstr("aes-256-cbc")));
}

TEST(OldCommandLine, AValueBehindEncryptIsTaken) {
  EXPECT_THAT(ParseSync(std::string(kRemote) + " aes-256-cbc").warnings,
              Contains(HasSubstr("aes-256-cbc")));
}

TEST(OldCommandLine, AnotherPortIsTakenLiterally) {
  const SyncCommand command = ParseSync(
      "master --port 7000 --meta /m --id 4 --src /s --dst h:/d --uuid 1");
  EXPECT_EQ(command.config.port, 7000);
  EXPECT_THAT(command.warnings, IsEmpty());
}

TEST(OldCommandLine, TheUserNamesACertificateBesideOurs) {
  const TemporaryFolder directory;
  for (const char* name : {"nas1", "admin"}) {
    for (const char* suffix : {".crt", ".key"}) {
      WriteContents(directory.path() + "/" + name + suffix, "x");
    }
  }
  const SyncCommand command =
      ParseSync(std::string(kRemote) + " --tls-cert " + directory.path() +
                "/nas1.crt --tls-key " + directory.path() + "/nas1.key");
  EXPECT_EQ(command.config.tls_certificate, directory.path() + "/admin.crt");
  EXPECT_EQ(command.config.tls_key, directory.path() + "/admin.key");
}

TEST(OldCommandLine, TheOldConfigurationFileIsRead) {
  const TemporaryFolder directory;
  const std::string path = directory.path() + "/snapsync.cfg";
  WriteContents(path, "[Logging]\ndirectory=/tmp\nfile_level=10\n");
  const SyncCommand command =
      ParseSync(std::string(kRemote) + " --cfg " + path);
  EXPECT_EQ(command.config.log_directory, "/tmp");
  EXPECT_EQ(command.config.log_level, Severity::kDebug);
}

TEST(OldCommandLine, AnOldConfigurationFileThatCanNotBeIsRefused) {
  const TemporaryFolder directory;
  const std::string path = directory.path() + "/snapsync.cfg";
  for (const char* text : {"[Logging]\nfile_level=loud\n", "what is this\n"}) {
    WriteContents(path, text);
    const absl::StatusOr<Command> command =
        Parse(std::string(kRemote) + " --cfg " + path);
    ASSERT_FALSE(command.ok()) << text;
    EXPECT_EQ(ReasonOf(command.status()), Reason::kConfiguration);
    EXPECT_THAT(std::string(MessageOf(command.status())), HasSubstr(path));
  }
}

TEST(OldCommandLine, TheQcow2Roles) {
  const SyncCommand exported = ParseSync(
      "qcow2_exporter --meta /dev/mapper/vg1-tp1_tmeta --id 4 --src "
      "/dev/mapper/vg1-snap30001 --uuid 1 --qcow /mnt/HDA_ROOT/testqcow2 "
      "--size 5368709120");
  EXPECT_EQ(exported.name, "export");
  EXPECT_TRUE(exported.sync.to_image);
  EXPECT_EQ(exported.sync.volume, "/mnt/HDA_ROOT/testqcow2");
  EXPECT_EQ(exported.sync.source.path, "/dev/mapper/vg1-snap30001");
  EXPECT_EQ(exported.sync.source.id, 4U);
  EXPECT_EQ(exported.sync.image.virtual_size, 5368709120U);
  EXPECT_TRUE(exported.sync.overwrite);
  const SyncCommand imported = ParseSync(
      "qcow2_importer --dst /dev/mapper/thin --uuid 1 --src "
      "/mnt/HDA_ROOT/testqcow2");
  EXPECT_EQ(imported.name, "import");
  EXPECT_TRUE(imported.sync.source.image.has_value());
  EXPECT_EQ(imported.sync.volume, "/dev/mapper/thin");
  EXPECT_TRUE(imported.sync.overwrite);
}

TEST(CommandLine, AnExport) {
  const SyncCommand command = ParseSync(
      "export --src vg/vol --qcow nas2:/exports/vol.qcow2 --size 6G "
      "--cluster-size 1M --compress zstd --chain --keep 7");
  EXPECT_EQ(command.destination.host, "nas2");
  EXPECT_EQ(command.sync.volume, "/exports/vol.qcow2");
  EXPECT_EQ(command.sync.replication, "export");
  ExportOptions image;
  image.virtual_size = 6 * 1024 * kMiB;
  image.cluster_size = kMiB;
  image.compression = "zstd";
  image.chain = true;
  image.keep = 7;
  EXPECT_EQ(command.sync.image, image);
  EXPECT_FALSE(command.sync.overwrite);
  const std::string line = "export --src vg/vol --qcow /a.qcow2 ";
  for (const char* bad :
       {"--cluster-size 2K", "--cluster-size 4M", "--cluster-size 100000",
        "--size 1000", "--compress lz4", "--keep 3", "--keep 0 --chain",
        "--keep 16 --chain"}) {
    EXPECT_EQ(ReasonOf(Parse(line + bad).status()), Reason::kUsage) << bad;
  }
}

TEST(CommandLine, AnImageCanBeVerifiedAndAnExportGivenUp) {
  const SyncCommand verify =
      ParseSync("verify --src vg/vol --qcow /exports/vol.qcow2 --uuid nightly");
  EXPECT_TRUE(verify.verify);
  EXPECT_TRUE(verify.sync.to_image);
  EXPECT_EQ(verify.sync.volume, "/exports/vol.qcow2");
  const SyncCommand abort =
      ParseSync("abort --qcow nas2:/exports/vol.qcow2 --uuid nightly");
  EXPECT_TRUE(abort.abort);
  EXPECT_TRUE(abort.sync.to_image);
  EXPECT_EQ(abort.destination.host, "nas2");
  EXPECT_FALSE(ParseSync("abort --dst nas2:vol --uuid nightly").sync.to_image);
  EXPECT_THAT(Refusal("abort --uuid nightly"), HasSubstr("--dst or --qcow"));
  EXPECT_THAT(Refusal("abort --dst nas2:vol --qcow /a.qcow2 --uuid nightly"),
              HasSubstr("--qcow"));
}

TEST(CommandLine, AnImportFromAnAgentGoesToAnAgent) {
  const absl::StatusOr<Command> command =
      Parse("import --src nas2:/exports/vol.qcow2 --dst nas1:vol --yes");
  ASSERT_TRUE(command.ok()) << command.status();
  const auto& revert = std::get<RevertCommand>(*command);
  EXPECT_EQ(revert.name, "import");
  EXPECT_EQ(revert.source.volume, "/exports/vol.qcow2");
  EXPECT_EQ(revert.target.host, "nas1");
  EXPECT_THAT(Refusal("import --src nas2:/exports/vol.qcow2 --dst /dev/vg/vol"),
              HasSubstr("HOST:VOLUME"));
  EXPECT_THAT(Refusal("import --src nas2:/exports/vol.qcow2 --dst nas1:vol "
                      "--yes --allow-data-file"),
              HasSubstr("run the import on nas2"));
}

}  // namespace
}  // namespace snapsync
