// SPDX-License-Identifier: Apache-2.0
#include "common/block/content_sample.h"

#include <algorithm>
#include <vector>

#include "common/base/aligned_buffer.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "common/block/zeroes.h"

namespace snapsync {
namespace {

constexpr uint64_t kEdge = kMiB;
constexpr uint64_t kSample = 4 * kKiB;
constexpr uint64_t kSamples = 64;

// Ascending, not overlapping, in whole sectors.
std::vector<Extent> Places(uint64_t size) {
  const uint64_t end = size / kSectorBytes * kSectorBytes;
  if (end <= 2 * kEdge + kSamples * kSample) {
    std::vector<Extent> all;
    for (uint64_t at = 0; at < end; at += kEdge) {
      all.push_back({at, std::min(kEdge, end - at)});
    }
    return all;
  }
  std::vector<Extent> places = {{0, kEdge}};
  // Evenly spread, but each at another place within its stride: contents that
  // repeat with the stride would look alike.
  const uint64_t stride = (end - 2 * kEdge) / kSamples / kSample * kSample;
  for (uint64_t i = 0; i < kSamples; ++i) {
    const uint64_t within =
        (i * 0x9e3779b97f4a7c15ULL >> 16) % (stride / kSample) * kSample;
    places.push_back({kEdge + i * stride + within, kSample});
  }
  places.push_back({end - kEdge, kEdge});
  return places;
}

}  // namespace

absl::StatusOr<ContentSample> SampleContent(BlockReader& reader) {
  const std::vector<Extent> places = Places(reader.size());
  uint64_t bytes = 0;
  for (const Extent& place : places) bytes += place.length;
  AlignedBuffer buffer(bytes);
  std::vector<ReadOperation> reads;
  size_t at = 0;
  for (const Extent& place : places) {
    reads.push_back({place.offset, buffer.span().subspan(at, place.length)});
    at += place.length;
  }
  SNAPSYNC_RETURN_IF_ERROR(reader.Read(reads));
  ContentSample sample;
  sample.all_zero = IsZero(buffer.span());
  sample.fingerprint =
      Xxh3().Update(reader.size()).Update(buffer.span()).Finish();
  return sample;
}

}  // namespace snapsync
