// SPDX-License-Identifier: Apache-2.0
//
// What the contract tests of targets need to know of a kind of target: how to
// make one that nobody uses, and how to look at it and tamper with it from
// outside, by other means than the target's own.
#ifndef SNAPSYNC_TESTS_CONTRACT_TARGET_FIXTURE_H_
#define SNAPSYNC_TESTS_CONTRACT_TARGET_FIXTURE_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "agent/targets/qcow2_target.h"
#include "agent/targets/target.h"

namespace snapsync {

using Bytes = std::vector<std::byte>;

class TargetFixture {
 public:
  virtual ~TargetFixture() = default;

  // A new object each time: what a restarted agent has.
  virtual std::unique_ptr<Target> Make() = 0;
  // Of another target of the same kind.
  virtual std::unique_ptr<Target> MakeOther() = 0;
  // What is open when the target is.
  virtual std::string path() const = 0;
  // Bytes; a multiple of 64 KiB.
  virtual uint64_t size() const = 0;

  // The disk as another program sees it, past the page cache.
  virtual Bytes Contents() const;
  // Writes as any other program would, and flushes.
  virtual void WriteFromOutside(uint64_t offset, const Bytes& bytes);
};

struct FixtureKind {
  std::string name;
  // nullptr: this machine can't; the reason is in `why`.
  std::function<std::unique_ptr<TargetFixture>(std::string& why)> make;
};
void PrintTo(const FixtureKind& kind, std::ostream* out);

FixtureKind FileKind();
// On a loop device.
FixtureKind BlockKind();
// In the volume group that SNAPSYNC_TEST_GROUP names, which has a thin pool
// "pool".
FixtureKind ThinKind();
// Seen from outside through QEMU.
FixtureKind Qcow2Kind(const std::string& name, const Qcow2Options& options);

// All bytes of a device or file, past the page cache.
Bytes ReadAll(const std::string& path);
Bytes Pattern(uint64_t size, uint32_t seed);

// Another process that has `path` open, until destruction.
class OtherProcess {
 public:
  explicit OtherProcess(const std::string& path);
  ~OtherProcess();
  OtherProcess(const OtherProcess&) = delete;
  OtherProcess& operator=(const OtherProcess&) = delete;

 private:
  pid_t pid_ = -1;
};

// Runs a command by the shell, and expects it to succeed. Its stdout.
std::string Shell(const std::string& command);

}  // namespace snapsync

#endif  // SNAPSYNC_TESTS_CONTRACT_TARGET_FIXTURE_H_
