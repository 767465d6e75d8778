// SPDX-License-Identifier: Apache-2.0
//
// The tables of an image, read slice by slice: a few of them are kept, so that
// neighbouring entries cost one read, and memory stays the same whatever the
// tables' size.
//
// TableReader is thread-safe, a Cursor is used by one thread at a time. Errors
// are those of HostFile.
#ifndef SNAPSYNC_COMMON_QCOW2_TABLE_READER_H_
#define SNAPSYNC_COMMON_QCOW2_TABLE_READER_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "common/qcow2/host_file.h"

namespace snapsync::qcow2 {

class TableReader {
 public:
  // `file` must outlive it.
  TableReader(const HostFile& file, uint64_t cluster_size);

  class Cursor {
   public:
    explicit Cursor(TableReader& reader) : reader_(&reader) {}

    // The bytes from `offset` of the file on, `*available` of them (one at
    // least); zeroes beyond the end of the file. Valid until the next call.
    absl::StatusOr<const std::byte*> At(uint64_t offset, size_t* available);

   private:
    TableReader* reader_;
    std::shared_ptr<const std::vector<std::byte>> slice_;
    uint64_t slice_offset_ = 0;
  };

 private:
  using Slice = std::shared_ptr<const std::vector<std::byte>>;
  struct Kept {
    uint64_t offset;
    Slice slice;
  };

  absl::StatusOr<Slice> Get(uint64_t offset);

  const HostFile& file_;
  const uint64_t slice_bytes_;
  Mutex mutex_;
  std::deque<Kept> kept_ ABSL_GUARDED_BY(mutex_);  // the latest first
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_TABLE_READER_H_
