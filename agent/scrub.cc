// SPDX-License-Identifier: Apache-2.0
#include "agent/scrub.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>

#include "agent/replica.h"
#include "common/base/aligned_buffer.h"
#include "common/base/error.h"
#include "common/base/rate_limiter.h"
#include "common/base/status_macros.h"

namespace snapsync {
namespace {

// Read at once.
constexpr uint64_t kBatchCells = 64;
// A cancelled scrub ends within this.
constexpr std::chrono::milliseconds kLongestSleep{200};

void AddDamage(Extent extent, ScrubProgress& progress) {
  progress.damaged_bytes += extent.length;
  std::vector<Extent>& damaged = progress.damaged;
  if (!damaged.empty() && damaged.back().end() == extent.offset) {
    damaged.back().length += extent.length;
  } else {
    damaged.push_back(extent);
  }
}

Extent BytesOf(uint64_t cell, uint64_t size) {
  const uint64_t offset = cell * kCellBytes;
  return {offset, std::min(kCellBytes, size - offset)};
}

}  // namespace

absl::Status ScrubCells(BlockReader& reader, Manifest& manifest, uint64_t first,
                        uint64_t end, ScrubProgress& progress) {
  const uint64_t size = manifest.head().size;
  const uint64_t damaged_before = manifest.damaged_sectors();
  AlignedBuffer buffer(kBatchCells * kCellBytes);
  std::vector<CellHash> known;
  while (first < end) {
    const uint64_t count = std::min(kBatchCells, end - first);
    known.resize(count);
    SNAPSYNC_RETURN_IF_ERROR(manifest.Read(first, known));
    const Extent all{
        first * kCellBytes,
        BytesOf(first + count - 1, size).end() - first * kCellBytes};
    const ReadOperation read{all.offset, buffer.span().first(all.length)};
    const bool readable = reader.Read({&read, 1}).ok();
    for (uint64_t i = 0; i < count; ++i) {
      const Extent cell = BytesOf(first + i, size);
      const std::span<std::byte> data =
          buffer.span().subspan(i * kCellBytes, cell.length);
      // One bad sector must not hide the others.
      if (!readable) {
        const ReadOperation again{cell.offset, data};
        if (!reader.Read({&again, 1}).ok()) {
          AddDamage(cell, progress);
          progress.compared += cell.length;
          continue;
        }
      }
      const CellHash found = HashOfCell(data);
      if (known[i] == kUnknownCell) {
        SNAPSYNC_RETURN_IF_ERROR(manifest.Write(first + i, {&found, 1}));
        progress.recorded += cell.length;
        continue;
      }
      progress.compared += cell.length;
      if (known[i] != found) AddDamage(cell, progress);
    }
    first += count;
  }
  progress.damaged_manifest += manifest.damaged_sectors() - damaged_before;
  return absl::OkStatus();
}

absl::StatusOr<ScrubProgress> RunScrub(
    Replica& replica, const ScrubOptions& options,
    const std::function<absl::Status(const ScrubProgress&)>& report) {
  ScrubProgress progress;
  progress.next = options.from;
  RateLimiter limiter(options.bytes_per_second);
  if (options.renew) SNAPSYNC_RETURN_IF_ERROR(replica.ForgetManifest());
  do {
    const uint64_t before = progress.next;
    progress.damaged.clear();
    SNAPSYNC_RETURN_IF_ERROR(replica.ScrubStep(options.step_bytes, progress));
    SNAPSYNC_RETURN_IF_ERROR(report(progress));
    auto wait = limiter.Take(progress.next - std::min(before, progress.next),
                             std::chrono::steady_clock::now());
    while (wait.count() > 0 && !options.cancelled()) {
      const auto nap = std::min<std::chrono::nanoseconds>(wait, kLongestSleep);
      std::this_thread::sleep_for(nap);
      wait -= nap;
    }
    if (progress.next < progress.size && options.cancelled()) {
      return Error(Reason::kConnection,
                   "the scrub was cancelled; it can go on with --from " +
                       std::to_string(progress.next));
    }
  } while (progress.next < progress.size);
  return progress;
}

}  // namespace snapsync
