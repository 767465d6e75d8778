// SPDX-License-Identifier: Apache-2.0
#include "common/thin/pool_status.h"

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/error.h"

namespace snapsync {
namespace {

// "used/total".
bool ParsePair(const std::string& word, uint64_t* used, uint64_t* total) {
  const std::vector<std::string> numbers = absl::StrSplit(word, '/');
  return numbers.size() == 2 && absl::SimpleAtoi(numbers[0], used) &&
         absl::SimpleAtoi(numbers[1], total);
}

}  // namespace

std::optional<std::string> PoolStatus::WhyReadOnly() const {
  if (failed) return "a failed pool";
  if (needs_check) return "needs_check";
  if (mode != "rw" && mode != "out_of_data_space") return "mode " + mode;
  return std::nullopt;
}

absl::StatusOr<PoolStatus> ParsePoolStatus(std::string_view line) {
  const std::vector<std::string> words = absl::StrSplit(
      absl::string_view(line.data(), line.size()), ' ', absl::SkipEmpty());
  PoolStatus status;
  if (words.size() == 1 && (words[0] == "Fail" || words[0] == "Error")) {
    status.failed = true;
    return status;
  }
  // transaction, metadata, data, held root, mode, discard, full, needs_check:
  // the kernel adds words at the end.
  bool good =
      words.size() >= 5 && absl::SimpleAtoi(words[0], &status.transaction_id) &&
      ParsePair(words[1], &status.used_metadata_blocks,
                &status.total_metadata_blocks) &&
      ParsePair(words[2], &status.used_data_blocks, &status.total_data_blocks);
  if (good && words[3] != "-") {
    uint64_t held_root = 0;
    good = absl::SimpleAtoi(words[3], &held_root);
    status.held_root = held_root;
  }
  if (!good) {
    return Error(Reason::kIo,
                 absl::StrCat("thin-pool status \"", std::string(line),
                              "\": not the words that a thin-pool target "
                              "gives"));
  }
  status.mode = words[4];
  for (const std::string& word : words) {
    if (word == "needs_check") status.needs_check = true;
  }
  return status;
}

}  // namespace snapsync
