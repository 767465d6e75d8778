// SPDX-License-Identifier: Apache-2.0
//
// Puts compressed clusters one after the other into host clusters, byte by
// byte. A byte that was handed to the queue is never written again: what is
// durable stays as it is, whatever happens to a later write.
//
// Used by one thread at a time.
#ifndef SNAPSYNC_COMMON_QCOW2_STREAM_PACKER_H_
#define SNAPSYNC_COMMON_QCOW2_STREAM_PACKER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/block/extent.h"
#include "common/qcow2/geometry.h"
#include "common/qcow2/host_space.h"
#include "common/qcow2/write_queue.h"

namespace snapsync::qcow2 {

class StreamPacker {
 public:
  // What is passed must outlive it.
  StreamPacker(const Geometry& geometry, HostSpace* space, WriteQueue* queue)
      : geometry_(geometry), space_(space), queue_(queue) {}

  // Where in the file `stream` will be. Requires: shorter than a cluster.
  absl::StatusOr<Extent> Add(std::span<const std::byte> stream);
  // Hands what was added to the queue.
  absl::Status Flush();

 private:
  // Streams that touch one host cluster, at most: they are counted in 16 bits.
  static constexpr uint64_t kMaxStreams = 30000;

  uint64_t Offset() const {
    return (host_cluster_ << geometry_.cluster_bits) + used_;
  }
  // Goes on in a new host cluster. True: it follows the one before.
  absl::StatusOr<bool> NextHostCluster();

  const Geometry geometry_;
  HostSpace* const space_;
  WriteQueue* const queue_;

  uint64_t host_cluster_ = 0;     // 0: none yet
  std::vector<std::byte> bytes_;  // of the host cluster
  uint64_t used_ = 0;             // of them
  uint64_t queued_ = 0;           // of these, handed to the queue
  uint64_t streams_ = 0;
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_STREAM_PACKER_H_
