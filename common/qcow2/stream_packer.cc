// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/stream_packer.h"

#include <algorithm>
#include <cstring>

#include "common/base/status_macros.h"

namespace snapsync::qcow2 {

absl::StatusOr<bool> StreamPacker::NextHostCluster() {
  const uint64_t next = space_->Allocate();
  const bool follows = host_cluster_ != 0 && next == host_cluster_ + 1;
  SNAPSYNC_RETURN_IF_ERROR(Flush());
  host_cluster_ = next;
  bytes_.assign(geometry_.cluster_bytes(), std::byte{0});
  used_ = queued_ = streams_ = 0;
  return follows;
}

absl::StatusOr<Extent> StreamPacker::Add(std::span<const std::byte> stream) {
  if (host_cluster_ == 0 || used_ == bytes_.size() || streams_ >= kMaxStreams) {
    SNAPSYNC_RETURN_IF_ERROR(NextHostCluster().status());
  }
  Extent place{Offset(), stream.size()};
  const uint64_t head = std::min(stream.size(), bytes_.size() - used_);
  std::memcpy(bytes_.data() + used_, stream.data(), head);
  used_ += head;
  if (head < stream.size()) {
    SNAPSYNC_ASSIGN_OR_RETURN(const bool follows, NextHostCluster());
    if (follows) {
      stream = stream.subspan(head);
    } else {
      // What was put into the old one stays unused.
      place.offset = Offset();
    }
    std::memcpy(bytes_.data(), stream.data(), stream.size());
    used_ = stream.size();
  }
  ++streams_;
  return place;
}

absl::Status StreamPacker::Flush() {
  if (used_ == queued_) return absl::OkStatus();
  // What follows goes to a block of the disk of its own.
  used_ = (used_ + GrowingFile::kAlignment - 1) / GrowingFile::kAlignment *
          GrowingFile::kAlignment;
  const uint64_t offset = (host_cluster_ << geometry_.cluster_bits) + queued_;
  SNAPSYNC_RETURN_IF_ERROR(
      queue_->Add(offset, std::span(bytes_).subspan(queued_, used_ - queued_)));
  queued_ = used_;
  return absl::OkStatus();
}

}  // namespace snapsync::qcow2
