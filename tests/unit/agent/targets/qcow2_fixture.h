// SPDX-License-Identifier: Apache-2.0
//
// Exports in a folder of their own, for the tests of what only they can meet.
#ifndef SNAPSYNC_TESTS_UNIT_AGENT_TARGETS_QCOW2_FIXTURE_H_
#define SNAPSYNC_TESTS_UNIT_AGENT_TARGETS_QCOW2_FIXTURE_H_

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "agent/targets/qcow2_target.h"
#include "common/base/aligned_buffer.h"
#include "gtest/gtest.h"
#include "tests/testing/qemu.h"
#include "tests/testing/random.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync {

using Bytes = std::vector<std::byte>;

inline Bytes RandomBytes(uint64_t size, uint64_t seed) {
  Bytes bytes(size);
  Random(seed).Fill(bytes);
  return bytes;
}

class Qcow2TargetTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kSize = 1 << 20;

  Qcow2TargetTest() { options_.replication = "test"; }

  // A new object each time: what a restarted agent has.
  std::unique_ptr<Target> Make() const {
    return MakeQcow2Target(folder_ / "a.qcow2", options_);
  }
  std::string Path(const std::string& name) const { return folder_ / name; }

  static void Write(BlockWriter& writer, uint64_t offset, const Bytes& bytes) {
    AlignedBuffer buffer(bytes.size());
    std::copy(bytes.begin(), bytes.end(), buffer.data());
    const WriteOperation write{offset, buffer.span()};
    EXPECT_THAT(writer.Write({&write, 1}), IsOk());
  }

  // A stage with `bytes` at `offset`.
  std::string Stage(uint64_t size, bool from_base, uint64_t offset,
                    const Bytes& bytes) const {
    const auto token = Make()->CreateStage(size, from_base);
    EXPECT_THAT(token, IsOk());
    if (!token.ok()) return "";
    const auto writer = Make()->OpenStage(*token);
    EXPECT_THAT(writer, IsOk());
    if (!writer.ok()) return "";
    Write(**writer, offset, bytes);
    EXPECT_THAT((*writer)->Flush(), IsOk());
    return *token;
  }

  // A full export of `bytes`. Its seal.
  std::string Export(const Bytes& bytes, uint64_t number = 1) const {
    const auto seal = Make()->Commit(Stage(bytes.size(), false, 0, bytes),
                                     number, Id128::Random(), "");
    EXPECT_THAT(seal, IsOk());
    return seal.value_or("");
  }
  // An incremental one of a change.
  std::string Change(uint64_t size, uint64_t offset, const Bytes& bytes,
                     uint64_t number) const {
    const auto seal = Make()->Commit(Stage(size, true, offset, bytes), number,
                                     Id128::Random(), "");
    EXPECT_THAT(seal, IsOk());
    return seal.value_or("");
  }

  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry :
         std::filesystem::directory_iterator(folder_.path())) {
      names.push_back(entry.path().filename());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  const TemporaryFolder folder_;
  Qcow2Options options_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_TESTS_UNIT_AGENT_TARGETS_QCOW2_FIXTURE_H_
