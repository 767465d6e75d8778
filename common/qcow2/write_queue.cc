// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/write_queue.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/base/status_macros.h"

namespace snapsync::qcow2 {

WriteQueue::WriteQueue(GrowingFile* file, size_t threads)
    : file_(file), pool_(threads) {}

bool WriteQueue::Batch::Touches(uint64_t offset, uint64_t length) const {
  return std::any_of(writes.begin(), writes.end(), [&](const auto& write) {
    return write.offset < offset + length &&
           offset < write.offset + write.data.size();
  });
}

absl::Status WriteQueue::Add(uint64_t offset, std::span<const std::byte> data) {
  if (filling_ != nullptr && filling_->used + data.size() > kBatchBytes) {
    Submit();
  }
  if (filling_ == nullptr) {
    MutexLock lock(&mutex_);
    if (idle_.empty() && made_ < kBatches) {
      idle_.push_back(std::make_unique<Batch>());
      ++made_;
    }
    const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return !idle_.empty();
    };
    mutex_.Await(ready);
    SNAPSYNC_RETURN_IF_ERROR(status_);
    filling_ = std::move(idle_.back());
    idle_.pop_back();
  }
  std::byte* to = filling_->buffer.data() + filling_->used;
  std::memcpy(to, data.data(), data.size());
  filling_->used += data.size();
  std::vector<WriteOperation>& writes = filling_->writes;
  if (!writes.empty() &&
      writes.back().offset + writes.back().data.size() == offset) {
    writes.back().data = {writes.back().data.data(),
                          writes.back().data.size() + data.size()};
  } else {
    writes.push_back({offset, {to, data.size()}});
  }
  return absl::OkStatus();
}

uint64_t WriteQueue::Submit() {
  if (filling_ == nullptr) return submitted_;
  const uint64_t number = ++submitted_;
  Batch* batch = filling_.get();
  {
    MutexLock lock(&mutex_);
    in_flight_.emplace(number, std::move(filling_));
  }
  pool_.Run([this, number, batch] { Write(number, batch); });
  return number;
}

void WriteQueue::Write(uint64_t number, Batch* batch) {
  const absl::Status status = file_->Write(batch->writes);
  MutexLock lock(&mutex_);
  if (status_.ok()) status_ = status;
  auto node = in_flight_.extract(number);
  node.mapped()->writes.clear();
  node.mapped()->used = 0;
  idle_.push_back(std::move(node.mapped()));
}

absl::Status WriteQueue::Wait(uint64_t number) {
  MutexLock lock(&mutex_);
  const auto written = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return in_flight_.empty() || in_flight_.begin()->first > number;
  };
  mutex_.Await(written);
  return status_;
}

absl::Status WriteQueue::Read(uint64_t offset, std::span<std::byte> data) {
  if (filling_ != nullptr && filling_->Touches(offset, data.size())) Submit();
  {
    MutexLock lock(&mutex_);
    const auto written = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return std::none_of(in_flight_.begin(), in_flight_.end(),
                          [&](const auto& batch) {
                            return batch.second->Touches(offset, data.size());
                          });
    };
    mutex_.Await(written);
    SNAPSYNC_RETURN_IF_ERROR(status_);
  }
  const ReadOperation read{offset, data};
  return file_->Read({&read, 1});
}

}  // namespace snapsync::qcow2
