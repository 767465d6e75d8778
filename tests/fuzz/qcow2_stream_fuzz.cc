// SPDX-License-Identifier: Apache-2.0
//
// Compressed clusters. An input is a byte that says how (bit 7: zstd; the lower
// four: the cluster's size, from 512 bytes on), then the stream.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "common/qcow2/cluster_decoder.h"
#include "common/qcow2/format.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace snapsync::qcow2;
  if (size == 0) return 0;
  const uint8_t type =
      (data[0] & 0x80U) != 0 ? kCompressionZstd : kCompressionDeflate;
  const size_t cluster_size = size_t{512}
                              << std::min<unsigned>(data[0] & 15U, 12);
  const std::span stream(reinterpret_cast<const std::byte*>(data + 1),
                         size - 1);
  // One that was used before gives what a new one gives, and all of it.
  static ClusterDecoder used;
  ClusterDecoder fresh;
  const auto first = std::make_unique<std::byte[]>(cluster_size);
  const auto second = std::make_unique<std::byte[]>(cluster_size);
  std::fill_n(second.get(), cluster_size, std::byte{0xff});
  const bool good = used.Decode(type, stream, {first.get(), cluster_size}).ok();
  if (good != fresh.Decode(type, stream, {second.get(), cluster_size}).ok()) {
    std::abort();
  }
  if (good &&
      !std::equal(first.get(), first.get() + cluster_size, second.get())) {
    std::abort();
  }
  return 0;
}
