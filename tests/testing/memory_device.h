// SPDX-License-Identifier: Apache-2.0
//
// A device in memory: what is written can be read at once. Every operation can
// be made to fail, and is counted. The device is shared by its readers and
// writers; it outlives what the code under test owns. Thread-safe but for the
// fields themselves, which a test sets and reads while nobody uses the device.
#ifndef SNAPSYNC_TESTS_TESTING_MEMORY_DEVICE_H_
#define SNAPSYNC_TESTS_TESTING_MEMORY_DEVICE_H_

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/block/block_device.h"

namespace snapsync {

struct MemoryDevice {
  explicit MemoryDevice(uint64_t size) : bytes(size) {}

  std::vector<std::byte> bytes;
  // "read", "write", "zero", "flush", in the order in which they came.
  std::vector<std::string> operations;
  // Asked before each; an error is returned and nothing done.
  std::function<absl::Status(std::string_view operation)> before;
  std::mutex mutex;

  absl::Status Note(const std::string& operation) {
    operations.push_back(operation);
    return before ? before(operation) : absl::OkStatus();
  }
  absl::Status CheckRange(uint64_t offset, uint64_t length) const {
    if (offset % 512 == 0 && length % 512 == 0 && offset <= bytes.size() &&
        length <= bytes.size() - offset) {
      return absl::OkStatus();
    }
    return Error(Reason::kIo, "memory: no such sectors");
  }
  size_t Count(std::string_view operation) const {
    return static_cast<size_t>(
        std::count(operations.begin(), operations.end(), operation));
  }
};

class MemoryReader final : public BlockReader {
 public:
  explicit MemoryReader(std::shared_ptr<MemoryDevice> device)
      : device_(std::move(device)) {}

  const std::string& name() const override { return name_; }
  uint64_t size() const override { return device_->bytes.size(); }
  absl::Status Read(std::span<const ReadOperation> operations) override {
    const std::lock_guard lock(device_->mutex);
    if (absl::Status s = device_->Note("read"); !s.ok()) return s;
    for (const ReadOperation& read : operations) {
      if (absl::Status s = device_->CheckRange(read.offset, read.data.size());
          !s.ok()) {
        return s;
      }
      std::memcpy(read.data.data(), device_->bytes.data() + read.offset,
                  read.data.size());
    }
    return absl::OkStatus();
  }

 private:
  const std::shared_ptr<MemoryDevice> device_;
  const std::string name_ = "memory";
};

class MemoryWriter final : public BlockWriter {
 public:
  explicit MemoryWriter(std::shared_ptr<MemoryDevice> device)
      : device_(std::move(device)) {}

  const std::string& name() const override { return name_; }
  uint64_t size() const override { return device_->bytes.size(); }
  absl::Status Write(std::span<const WriteOperation> operations) override {
    const std::lock_guard lock(device_->mutex);
    if (absl::Status s = device_->Note("write"); !s.ok()) return s;
    for (const WriteOperation& write : operations) {
      if (absl::Status s = device_->CheckRange(write.offset, write.data.size());
          !s.ok()) {
        return s;
      }
      std::memcpy(device_->bytes.data() + write.offset, write.data.data(),
                  write.data.size());
    }
    return absl::OkStatus();
  }
  absl::Status Zero(Extent extent) override {
    const std::lock_guard lock(device_->mutex);
    if (absl::Status s = device_->Note("zero"); !s.ok()) return s;
    if (absl::Status s = device_->CheckRange(extent.offset, extent.length);
        !s.ok()) {
      return s;
    }
    std::memset(device_->bytes.data() + extent.offset, 0, extent.length);
    return absl::OkStatus();
  }
  absl::Status Flush() override {
    const std::lock_guard lock(device_->mutex);
    return device_->Note("flush");
  }
  absl::Status ReadBack(std::span<const ReadOperation> operations) override {
    return MemoryReader(device_).Read(operations);
  }

 private:
  const std::shared_ptr<MemoryDevice> device_;
  const std::string name_ = "memory";
};

}  // namespace snapsync

#endif  // SNAPSYNC_TESTS_TESTING_MEMORY_DEVICE_H_
