// SPDX-License-Identifier: Apache-2.0
//
// An agent that only answers HashBlocks: of a target in memory.
#ifndef SNAPSYNC_TESTS_UNIT_SENDER_COMPARING_AGENT_H_
#define SNAPSYNC_TESTS_UNIT_SENDER_COMPARING_AGENT_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/transfer/block_hashes.h"
#include "sender/agent_client.h"
#include "tests/testing/memory_device.h"

namespace snapsync {

class ComparingAgent final : public AgentClient {
 public:
  explicit ComparingAgent(uint64_t size)
      : device(std::make_shared<MemoryDevice>(size)) {}

  std::shared_ptr<MemoryDevice> device;
  Id128 generation;
  absl::Status refusal;      // if not OK, the answer
  uint64_t left_out = 0;     // blocks at the end
  uint64_t first_block = 0;  // that it says it starts with
  std::optional<HashRequest> asked;

  absl::StatusOr<Id128> HashBlocks(const HashRequest& request,
                                   const HashSink& sink) override {
    asked = request;
    if (!refusal.ok()) return refusal;
    MemoryReader reader(device);
    ExtentList all;
    all.Append({0, request.source_size});
    BlockHasher hasher(&reader, request.source_size, all, false);
    std::vector<Digest256> digests;
    for (;;) {
      SNAPSYNC_ASSIGN_OR_RETURN(const auto blocks, hasher.Next());
      if (blocks.empty()) break;
      for (const HashedBlock& block : blocks) digests.push_back(block.digest);
    }
    digests.resize(digests.size() - left_out);
    // In parts of no round number.
    for (size_t at = 0; at < digests.size();) {
      const size_t count = std::min<size_t>(37, digests.size() - at);
      SNAPSYNC_RETURN_IF_ERROR(sink(generation, first_block + at,
                                    std::span(digests).subspan(at, count)));
      at += count;
    }
    return generation;
  }

  absl::StatusOr<VolumeState> Describe(const std::string&) override {
    return NotHere();
  }
  absl::StatusOr<SessionGrant> OpenSession(const SessionRequest&) override {
    return NotHere();
  }
  absl::StatusOr<std::unique_ptr<SegmentStream>> StartSegment(
      const std::string&, const Id128&, uint64_t) override {
    return NotHere();
  }
  absl::StatusOr<Receipt> CommitSession(const CommitRequest&) override {
    return NotHere();
  }
  void Cancel() override {}

 private:
  static absl::Status NotHere() {
    return Error(Reason::kOther, "this agent only hashes");
  }
};

}  // namespace snapsync

#endif  // SNAPSYNC_TESTS_UNIT_SENDER_COMPARING_AGENT_H_
