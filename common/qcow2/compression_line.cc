// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/compression_line.h"

#include <algorithm>
#include <utility>

#include "common/base/status_macros.h"

namespace snapsync::qcow2 {
namespace {

// At a few hundred MiB a second this is a millisecond's work.
constexpr uint64_t kGroupBytes = 256 * kKiB;
// On their way for each thread: one at work, one that waits for it, and one
// that is done and waits for its turn.
constexpr size_t kGroupsPerThread = 3;

}  // namespace

CompressionLine::CompressionLine(const Geometry& geometry, uint8_t type,
                                 size_t threads, Out out)
    : cluster_bytes_(geometry.cluster_bytes()),
      group_clusters_(std::max<uint64_t>(1, kGroupBytes / cluster_bytes_)),
      groups_max_(std::max<size_t>(1, threads * kGroupsPerThread)),
      type_(type),
      out_(std::move(out)),
      pool_(threads) {}

absl::Status CompressionLine::Add(uint64_t cluster,
                                  std::span<const std::byte> data) {
  if (!filling_) {
    while (line_.size() >= groups_max_) {
      SNAPSYNC_RETURN_IF_ERROR(TakeOldest());
    }
    if (unused_.empty()) unused_.push_back(std::make_unique<Group>());
    line_.push_back(std::move(unused_.back()));
    unused_.pop_back();
    filling_ = true;
  }
  Group& group = *line_.back();
  group.clusters.push_back(cluster);
  group.whole.insert(group.whole.end(), data.begin(), data.end());
  if (group.clusters.size() == group_clusters_) Start();
  return absl::OkStatus();
}

void CompressionLine::Start() {
  filling_ = false;
  Group* group = line_.back().get();
  pool_.Run([this, group] {
    Compress(*group);
    MutexLock lock(&mutex_);
    group->done = true;
  });
}

void CompressionLine::Compress(Group& group) {
  std::unique_ptr<ClusterEncoder> encoder;
  {
    MutexLock lock(&mutex_);
    if (!encoders_.empty()) {
      encoder = std::move(encoders_.back());
      encoders_.pop_back();
    }
  }
  if (encoder == nullptr) encoder = std::make_unique<ClusterEncoder>(type_);
  group.packed.resize(group.whole.size());
  for (size_t i = 0; i < group.clusters.size(); ++i) {
    const size_t at = i * cluster_bytes_;
    group.packed_bytes.push_back(encoder->Encode(
        std::span(group.whole).subspan(at, cluster_bytes_),
        std::span(group.packed).subspan(at, cluster_bytes_ - 1)));
  }
  MutexLock lock(&mutex_);
  encoders_.push_back(std::move(encoder));
}

absl::Status CompressionLine::TakeOldest() {
  if (filling_ && line_.size() == 1) Start();
  std::unique_ptr<Group> group = std::move(line_.front());
  line_.pop_front();
  {
    MutexLock lock(&mutex_);
    const auto done = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return group->done;
    };
    mutex_.Await(done);
  }
  for (size_t i = 0; i < group->clusters.size(); ++i) {
    const size_t at = i * cluster_bytes_;
    SNAPSYNC_RETURN_IF_ERROR(out_(
        group->clusters[i], std::span(group->whole).subspan(at, cluster_bytes_),
        std::span(group->packed).subspan(at, group->packed_bytes[i])));
  }
  group->clusters.clear();
  group->whole.clear();
  group->packed_bytes.clear();
  group->done = false;
  unused_.push_back(std::move(group));
  return absl::OkStatus();
}

absl::Status CompressionLine::Drain() {
  while (!line_.empty()) SNAPSYNC_RETURN_IF_ERROR(TakeOldest());
  return absl::OkStatus();
}

}  // namespace snapsync::qcow2
