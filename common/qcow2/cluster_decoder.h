// SPDX-License-Identifier: Apache-2.0
//
// Compressed clusters: a raw deflate stream (RFC 1951) or a zstd frame, read
// until exactly one cluster is out; what follows it in the last sector belongs
// to somebody else. A frame can't ask for a window of more than 8 MiB.
//
// Used by one thread at a time. Errors are kIo and say what is wrong with the
// stream; the caller says which one it is.
#ifndef SNAPSYNC_COMMON_QCOW2_CLUSTER_DECODER_H_
#define SNAPSYNC_COMMON_QCOW2_CLUSTER_DECODER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"

namespace snapsync::qcow2 {

class ClusterDecoder {
 public:
  ClusterDecoder();
  ~ClusterDecoder();
  ClusterDecoder(const ClusterDecoder&) = delete;
  ClusterDecoder& operator=(const ClusterDecoder&) = delete;

  // Fills all of `cluster` from `stream`. `type` is kCompressionDeflate or
  // kCompressionZstd. On an error the contents of `cluster` are unspecified.
  absl::Status Decode(uint8_t type, std::span<const std::byte> stream,
                      std::span<std::byte> cluster);

 private:
  struct Inflater;
  struct ZstdContext;

  absl::Status Inflate(std::span<const std::byte> stream,
                       std::span<std::byte> cluster);
  absl::Status Unzstd(std::span<const std::byte> stream,
                      std::span<std::byte> cluster);

  // Made when they are first needed.
  std::unique_ptr<Inflater> inflater_;
  std::unique_ptr<ZstdContext> zstd_;
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_CLUSTER_DECODER_H_
