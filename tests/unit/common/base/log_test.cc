// SPDX-License-Identifier: Apache-2.0
#include "common/base/log.h"

#include <filesystem>

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync {
namespace {

using testing::internal::CaptureStderr;
using testing::internal::GetCapturedStderr;

TEST(Log, OnlyTheFourLevelsAreKnown) {
  EXPECT_EQ(ParseSeverity("debug"), Severity::kDebug);
  EXPECT_EQ(ParseSeverity("info"), Severity::kInfo);
  EXPECT_EQ(ParseSeverity("warning"), Severity::kWarning);
  EXPECT_EQ(ParseSeverity("error"), Severity::kError);
  EXPECT_FALSE(ParseSeverity("Error").has_value());
  EXPECT_FALSE(ParseSeverity("").has_value());
}

TEST(Log, ADirectoryThatCantBeMadeIsAConfigurationError) {
  LogOptions options;
  options.directory = "/nonexistent/log";
  EXPECT_THAT(StartLog(options),
              FailsWith(Reason::kConfiguration, "/nonexistent/log"));
}

// glog starts once in a process, so everything about it is in one test.
TEST(Log, LinesGoWhereTheirLevelSays) {
  const TemporaryFolder folder;
  LogOptions options;
  options.program = "log_test";
  options.directory = folder / "log";
  options.file_level = Severity::kInfo;
  options.console_level = Severity::kError;
  ASSERT_THAT(StartLog(options), IsOk());
  CaptureStderr();
  Log(Severity::kDebug, "a detail");
  Log(Severity::kInfo, "a fact");
  Log(Severity::kError, "a fault");
  EXPECT_EQ(GetCapturedStderr(), "error: a fault\n");
  std::string logged;
  for (const auto& entry :
       std::filesystem::directory_iterator(folder / "log")) {
    if (!entry.is_symlink()) logged += ContentsOf(entry.path());
  }
  EXPECT_NE(logged.find("a fact"), std::string::npos);
  EXPECT_NE(logged.find("a fault"), std::string::npos);
  EXPECT_NE(logged.find("log_test.cc"), std::string::npos);
  EXPECT_EQ(logged.find("a detail"), std::string::npos);
}

}  // namespace
}  // namespace snapsync
