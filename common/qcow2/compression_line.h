// SPDX-License-Identifier: Apache-2.0
//
// Clusters on their way through the compressor: they go in one by one, several
// threads compress them, and they come out in the order in which they went in.
// What is on its way is bounded.
//
// Used by one thread at a time; `out` is called by that thread.
#ifndef SNAPSYNC_COMMON_QCOW2_COMPRESSION_LINE_H_
#define SNAPSYNC_COMMON_QCOW2_COMPRESSION_LINE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "common/base/mutex.h"
#include "common/base/task_pool.h"
#include "common/qcow2/cluster_encoder.h"
#include "common/qcow2/geometry.h"

namespace snapsync::qcow2 {

class CompressionLine {
 public:
  // `packed` is empty when the cluster does not become smaller.
  using Out = std::function<absl::Status(uint64_t cluster,
                                         std::span<const std::byte> whole,
                                         std::span<const std::byte> packed)>;

  CompressionLine(const Geometry& geometry, uint8_t type, size_t threads,
                  Out out);

  absl::Status Add(uint64_t cluster, std::span<const std::byte> data);
  // Until nothing is on its way.
  absl::Status Drain();
  // Nothing is on its way.
  bool empty() const { return line_.empty(); }

 private:
  // Clusters that one task compresses: small ones are not worth one each.
  struct Group {
    std::vector<uint64_t> clusters;
    std::vector<std::byte> whole;
    std::vector<std::byte> packed;     // of whole.size()
    std::vector<size_t> packed_bytes;  // of each cluster, 0: not smaller
    bool done = false;
  };

  void Start();
  void Compress(Group& group);
  absl::Status TakeOldest();

  const uint64_t cluster_bytes_;
  const size_t group_clusters_;
  const size_t groups_max_;
  const uint8_t type_;
  const Out out_;

  std::deque<std::unique_ptr<Group>> line_;  // the last one may still be filled
  bool filling_ = false;
  std::vector<std::unique_ptr<Group>> unused_;

  Mutex mutex_;  // also guards Group::done
  std::vector<std::unique_ptr<ClusterEncoder>> encoders_
      ABSL_GUARDED_BY(mutex_);

  TaskPool pool_;  // last: its threads use the others
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_COMPRESSION_LINE_H_
