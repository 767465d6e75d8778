// SPDX-License-Identifier: Apache-2.0
//
// QEMU's own programs as the judges of images. Used by one thread at a time.
#ifndef SNAPSYNC_TESTS_TESTING_QEMU_H_
#define SNAPSYNC_TESTS_TESTING_QEMU_H_

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace snapsync {

// Runs it and expects it to succeed. Its stdout.
std::string RunQemu(const std::vector<std::string>& argv);

// `qemu-img check` finds neither errors nor leaks nor wrong COPIED flags.
::testing::AssertionResult IsCleanImage(const std::string& path);

// `qemu-img compare`: the disk in the QCOW2 file `path` is that of the raw
// file, and has its size.
::testing::AssertionResult HasContentsOf(const std::string& path,
                                         const std::string& raw_path);
::testing::AssertionResult HasContents(const std::string& path,
                                       std::span<const std::byte> contents);

// The disk in the QCOW2 file `path`, as `qemu-img convert` reads it. Empty, and
// the test has failed, when it can't.
std::vector<std::byte> ReadByQemu(const std::string& path);

}  // namespace snapsync

#endif  // SNAPSYNC_TESTS_TESTING_QEMU_H_
