// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/refcount_window.h"

#include <algorithm>
#include <string>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/qcow2/cluster_entry.h"
#include "common/qcow2/format.h"

namespace snapsync::qcow2 {

absl::Status RefcountWindow::Shared(uint64_t host_cluster) const {
  return Error(Reason::kOther,
               "host cluster " + std::to_string(host_cluster) +
                   " has two owners: a bug; nothing was committed");
}

absl::Status RefcountWindow::AddOwned(uint64_t first, uint64_t count) {
  const uint64_t last = std::min(first + count, end());
  for (uint64_t at = std::max(first, first_); at < last; ++at) {
    uint16_t& refcount = counts_[at - first_];
    if (refcount != 0) return Shared(at);
    refcount = kOwned | 1U;
  }
  return absl::OkStatus();
}

absl::Status RefcountWindow::AddShared(uint64_t first, uint64_t count) {
  const uint64_t last = std::min(first + count, end());
  for (uint64_t at = std::max(first, first_); at < last; ++at) {
    uint16_t& refcount = counts_[at - first_];
    // The packer stays below: it would be no count any more.
    if ((refcount & kOwned) != 0 || refcount == kOwned - 1) return Shared(at);
    ++refcount;
  }
  return absl::OkStatus();
}

absl::Status RefcountWindow::AddTable(std::span<const uint64_t> entries) {
  for (const uint64_t entry : entries) {
    if (!HasData(entry)) continue;
    const Extent host = HostBytesOf(geometry_, entry);
    const uint64_t first = host.offset >> geometry_.cluster_bits;
    if (IsCompressed(entry)) {
      SNAPSYNC_RETURN_IF_ERROR(
          AddShared(first, geometry_.ClustersOf(host.end()) - first));
    } else {
      SNAPSYNC_RETURN_IF_ERROR(AddOwned(first, 1));
    }
  }
  return absl::OkStatus();
}

std::vector<std::byte> RefcountWindow::EncodeBlock(uint64_t first) const {
  std::vector<std::byte> bytes(geometry_.cluster_bytes());
  const uint64_t last = std::min(first + geometry_.block_entries(), end());
  for (uint64_t at = first; at < last; ++at) {
    StoreBig(bytes.data() + (at - first) * 2, Of(at));
  }
  return bytes;
}

}  // namespace snapsync::qcow2
