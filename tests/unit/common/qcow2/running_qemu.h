// SPDX-License-Identifier: Apache-2.0
//
// QEMU's own programs in tests: they make the images, judge ours, and have
// images open as a virtual machine has.
#ifndef SNAPSYNC_TESTS_UNIT_COMMON_QCOW2_RUNNING_QEMU_H_
#define SNAPSYNC_TESTS_UNIT_COMMON_QCOW2_RUNNING_QEMU_H_

#include <signal.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/subprocess.h"
#include "gtest/gtest.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync::qcow2 {

// Whether the program could be run and was content.
inline bool Succeeds(const std::vector<std::string>& argv) {
  const auto result = RunSubprocess(argv);
  return result.ok() && result->exit_status == 0;
}

// The same, a test's failure if not.
inline void MustRun(const std::vector<std::string>& argv) {
  const auto result = RunSubprocess(argv);
  ASSERT_TRUE(result.ok()) << result.status().ToString();
  ASSERT_EQ(result->exit_status, 0) << DescribeFailure(*result);
}

// A qemu-nbd that has an image open until the object ends.
class OpenInQemu {
 public:
  enum class Mode { kReadOnly, kReadWrite };

  OpenInQemu(const std::string& image, Mode mode) {
    std::vector<std::string> argv = {
        "qemu-nbd",   "--fork",      "--persistent", "--socket", folder_ / "s",
        "--pid-file", folder_ / "p", "--format",     "qcow2"};
    if (mode == Mode::kReadOnly) argv.emplace_back("--read-only");
    argv.push_back(image);
    MustRun(argv);
    pid_ = std::atoi(ContentsOf(folder_ / "p").c_str());
  }
  ~OpenInQemu() {
    if (pid_ <= 0) return;
    // It is no child of ours, and somebody else may wait for it or not: its
    // locks are gone when it is a zombie. A signal that comes while it is
    // starting is forgotten.
    const std::string status = "/proc/" + std::to_string(pid_) + "/status";
    for (std::string text = ContentsOf(status);
         !text.empty() && text.find("State:\tZ") == std::string::npos;
         text = ContentsOf(status)) {
      ::kill(pid_, SIGTERM);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  OpenInQemu(const OpenInQemu&) = delete;
  OpenInQemu& operator=(const OpenInQemu&) = delete;

 private:
  TemporaryFolder folder_;
  pid_t pid_ = 0;
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_TESTS_UNIT_COMMON_QCOW2_RUNNING_QEMU_H_
