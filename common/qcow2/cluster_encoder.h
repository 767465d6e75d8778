// SPDX-License-Identifier: Apache-2.0
//
// Compresses clusters as QEMU does: zstd frames of level 3, or raw deflate
// streams (RFC 1951) with a window of 4 KiB. cluster_decoder.h is the other
// way.
//
// Used by one thread at a time.
#ifndef SNAPSYNC_COMMON_QCOW2_CLUSTER_ENCODER_H_
#define SNAPSYNC_COMMON_QCOW2_CLUSTER_ENCODER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace snapsync::qcow2 {

class ClusterEncoder {
 public:
  // kCompressionDeflate or kCompressionZstd.
  explicit ClusterEncoder(uint8_t type);
  ~ClusterEncoder();
  ClusterEncoder(const ClusterEncoder&) = delete;
  ClusterEncoder& operator=(const ClusterEncoder&) = delete;

  // The number of bytes written to `out`; 0 when they would not fit: the
  // cluster is then better stored as it is.
  size_t Encode(std::span<const std::byte> cluster, std::span<std::byte> out);

 private:
  struct Deflater;
  struct ZstdContext;

  std::unique_ptr<Deflater> deflater_;
  std::unique_ptr<ZstdContext> zstd_;
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_CLUSTER_ENCODER_H_
