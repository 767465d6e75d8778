// SPDX-License-Identifier: Apache-2.0
#include "common/block/uring.h"

#include <liburing.h>

#include <cerrno>
#include <utility>

#include "common/base/error.h"

namespace snapsync {
namespace {

// In one batch, before EINTR and EAGAIN count as what they say.
constexpr int kTransientRetries = 100;

}  // namespace

struct Uring::Ring {
  ~Ring() {
    if (ready) io_uring_queue_exit(&uring);
  }
  io_uring uring{};
  bool ready = false;
};

Uring::Uring(std::unique_ptr<Ring> ring) : ring_(std::move(ring)) {}
Uring::~Uring() = default;

absl::StatusOr<std::unique_ptr<Uring>> Uring::Create() {
  auto ring = std::make_unique<Ring>();
  const int result = io_uring_queue_init(kDepth, &ring->uring, 0);
  if (result < 0) {
    return PosixError(-result,
                      "io_uring is not available (is kernel.io_uring_disabled "
                      "set, or the memory lock limit too low?)");
  }
  ring->ready = true;
  return std::unique_ptr<Uring>(new Uring(std::move(ring)));
}

absl::Status Uring::Run(Direction direction, int fd, const std::string& name,
                        std::span<Operation> operations) {
  io_uring* uring = &ring_->uring;
  absl::Status status;
  size_t next = 0;
  unsigned in_flight = 0;
  // A descriptor with O_NONBLOCK answers EAGAIN for as long as it likes.
  int retries_left = kTransientRetries;

  const auto queue = [&](size_t index) {
    io_uring_sqe* entry = io_uring_get_sqe(uring);
    const Operation& operation = operations[index];
    const auto length = static_cast<unsigned>(operation.length);
    if (direction == Direction::kRead) {
      io_uring_prep_read(entry, fd, operation.data, length, operation.offset);
    } else {
      io_uring_prep_write(entry, fd, operation.data, length, operation.offset);
    }
    io_uring_sqe_set_data64(entry, index);
    ++in_flight;
  };
  const auto fail = [&](int error, const Operation& operation) {
    if (!status.ok()) return;
    const bool reading = direction == Direction::kRead;
    const std::string what = name + ": " + (reading ? "read" : "write") +
                             " of " + std::to_string(operation.length) +
                             " bytes at offset " +
                             std::to_string(operation.offset) + " failed";
    status = reading ? PosixError(error, what) : WriteError(error, what);
  };

  while (in_flight > 0 || (status.ok() && next < operations.size())) {
    while (status.ok() && next < operations.size() && in_flight < kDepth) {
      queue(next++);
    }
    int result = io_uring_submit_and_wait(uring, 1);
    if (result < 0 && result != -EINTR && result != -EAGAIN &&
        result != -EBUSY) {
      // Nothing can be waited for any more, and buffers may be in use: going
      // on would corrupt memory.
      std::abort();
    }
    io_uring_cqe* completion = nullptr;
    while (io_uring_peek_cqe(uring, &completion) == 0) {
      const auto index =
          static_cast<size_t>(io_uring_cqe_get_data64(completion));
      result = completion->res;
      io_uring_cqe_seen(uring, completion);
      --in_flight;
      Operation& operation = operations[index];
      const bool transient = result == -EINTR || result == -EAGAIN;
      if (transient && retries_left > 0 && status.ok()) {
        --retries_left;
        queue(index);
      } else if (result < 0) {
        fail(-result, operation);
      } else if (result == 0) {
        fail(direction == Direction::kRead ? ENODATA : ENOSPC, operation);
      } else if (static_cast<size_t>(result) < operation.length) {
        operation.offset += static_cast<uint64_t>(result);
        operation.data += result;
        operation.length -= static_cast<size_t>(result);
        if (status.ok()) queue(index);
      }
    }
  }
  return status;
}

}  // namespace snapsync
