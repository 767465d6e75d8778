// SPDX-License-Identifier: Apache-2.0
#include "agent/batch_writer.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace snapsync {

BatchWriter::BatchWriter(Write write, const Options& options)
    : write_(std::move(write)), options_(options), pool_(options.threads) {}

void BatchWriter::TakeBatch(uint64_t offset, uint64_t data_bytes) {
  if (offset < end_) {
    Drain();
  } else if (filling_ != nullptr && filling_->used + data_bytes > kBatchBytes) {
    Submit();
  }
  if (filling_ != nullptr) return;
  MutexLock lock(&mutex_);
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return in_flight_ <= options_.threads;
  };
  mutex_.Await(ready);
  if (idle_.empty()) idle_.push_back(std::make_unique<Batch>());
  filling_ = std::move(idle_.back());
  idle_.pop_back();
}

void BatchWriter::Add(uint64_t offset, std::span<const std::byte> data) {
  TakeBatch(offset, data.size());
  if (options_.copy) {
    AlignedBuffer& buffer = filling_->buffer;
    if (buffer.size() == 0) {
      buffer = AlignedBuffer(std::min(kBatchBytes, options_.most_bytes));
    }
    std::byte* const to = buffer.data() + filling_->used;
    std::memcpy(to, data.data(), data.size());
    data = {to, data.size()};
  }
  filling_->used += data.size();
  end_ = offset + data.size();
  std::vector<WriteOperation>& writes = filling_->writes;
  if (!writes.empty()) {
    WriteOperation& last = writes.back();
    if (last.offset + last.data.size() == offset &&
        last.data.data() + last.data.size() == data.data()) {
      last.data = {last.data.data(), last.data.size() + data.size()};
      return;
    }
  }
  writes.push_back({offset, data});
}

void BatchWriter::AddZeroes(Extent extent) {
  TakeBatch(extent.offset, 0);
  filling_->zeroes.Append(extent);
  end_ = extent.end();
}

void BatchWriter::Submit() {
  if (filling_ == nullptr) return;
  Batch* const batch = filling_.release();
  {
    MutexLock lock(&mutex_);
    ++in_flight_;
  }
  pool_.Run([this, batch] { Run(batch); });
}

void BatchWriter::Run(Batch* batch) {
  write_(batch->writes, batch->zeroes);
  batch->writes.clear();
  batch->zeroes = ExtentList();
  batch->used = 0;
  MutexLock lock(&mutex_);
  --in_flight_;
  idle_.emplace_back(batch);
}

void BatchWriter::Drain() {
  Submit();
  MutexLock lock(&mutex_);
  const auto written = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return in_flight_ == 0;
  };
  mutex_.Await(written);
}

}  // namespace snapsync
