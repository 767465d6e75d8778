// SPDX-License-Identifier: Apache-2.0
#include "tests/testing/qemu.h"

#include "common/base/subprocess.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync {
namespace {

// Failure, too, when it says `objection`.
::testing::AssertionResult Judge(const std::vector<std::string>& argv,
                                 const std::string& objection = "?") {
  const auto result = RunSubprocess(argv);
  if (!result.ok()) {
    return ::testing::AssertionFailure() << result.status().ToString();
  }
  if (result->exit_status == 0 &&
      (result->output + result->error_output).find(objection) ==
          std::string::npos) {
    return ::testing::AssertionSuccess();
  }
  return ::testing::AssertionFailure() << DescribeFailure(*result) << "\n"
                                       << result->output;
}

}  // namespace

std::string RunQemu(const std::vector<std::string>& argv) {
  const auto result = RunSubprocess(argv);
  EXPECT_THAT(result, IsOk());
  if (!result.ok()) return "";
  EXPECT_EQ(result->exit_status, 0) << DescribeFailure(*result);
  return result->output;
}

::testing::AssertionResult IsCleanImage(const std::string& path) {
  return Judge({"qemu-img", "check", "-f", "qcow2", path});
}

::testing::AssertionResult HasContentsOf(const std::string& path,
                                         const std::string& raw_path) {
  // Strict mode would also compare what is allocated.
  return Judge(
      {"qemu-img", "compare", "-f", "qcow2", "-F", "raw", path, raw_path},
      "size mismatch");
}

::testing::AssertionResult HasContents(const std::string& path,
                                       std::span<const std::byte> contents) {
  const TemporaryFolder folder(TemporaryFolder::InMemory());
  WriteContents(folder / "raw", {reinterpret_cast<const char*>(contents.data()),
                                 contents.size()});
  return HasContentsOf(path, folder / "raw");
}

std::vector<std::byte> ReadByQemu(const std::string& path) {
  const TemporaryFolder folder;
  RunQemu({"qemu-img", "convert", "-f", "qcow2", "-O", "raw", path,
           folder / "raw"});
  const std::string contents = ContentsOf(folder / "raw");
  const auto bytes = std::as_bytes(std::span(contents));
  return {bytes.begin(), bytes.end()};
}

}  // namespace snapsync
