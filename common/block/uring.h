// SPDX-License-Identifier: Apache-2.0
//
// A batch of reads or writes on one descriptor through io_uring. The only place
// that knows liburing.
//
// Used by one thread at a time. Does not own the descriptor.
#ifndef SNAPSYNC_COMMON_BLOCK_URING_H_
#define SNAPSYNC_COMMON_BLOCK_URING_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace snapsync {

class Uring {
 public:
  // Operations in flight at a time. 32 of up to 1 MiB fill what an NVMe disk
  // takes; more only adds latency.
  static constexpr unsigned kDepth = 32;

  struct Operation {
    uint64_t offset = 0;
    std::byte* data = nullptr;  // only read from when writing
    size_t length = 0;
  };
  enum class Direction { kRead, kWrite };

  static absl::StatusOr<std::unique_ptr<Uring>> Create();
  ~Uring();
  Uring(const Uring&) = delete;
  Uring& operator=(const Uring&) = delete;

  // Does all operations and waits for them. Short reads and writes are gone on
  // with. On an error the first one is returned, after all that was in flight
  // has ended: no buffer is in use any more. `name` is for the error's text.
  absl::Status Run(Direction direction, int fd, const std::string& name,
                   std::span<Operation> operations);

 private:
  struct Ring;
  explicit Uring(std::unique_ptr<Ring> ring);
  std::unique_ptr<Ring> ring_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BLOCK_URING_H_
