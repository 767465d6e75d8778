// SPDX-License-Identifier: Apache-2.0
//
// Bytes on the heap, aligned to a page, as O_DIRECT wants them; zeroed at
// construction. Movable, not copyable.
#ifndef SNAPSYNC_COMMON_BASE_ALIGNED_BUFFER_H_
#define SNAPSYNC_COMMON_BASE_ALIGNED_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <span>

namespace snapsync {

class AlignedBuffer {
 public:
  static constexpr size_t kAlignment = 4096;

  AlignedBuffer() = default;
  // `size` in bytes; the memory is rounded up to whole pages.
  explicit AlignedBuffer(size_t size) : size_(size) {
    const size_t whole = (size + kAlignment - 1) / kAlignment * kAlignment;
    bytes_.reset(
        static_cast<std::byte*>(std::aligned_alloc(kAlignment, whole)));
    if (!bytes_ && whole != 0) throw std::bad_alloc();
    if (whole != 0) std::memset(bytes_.get(), 0, whole);
  }

  // Whether `bytes`, part of a buffer, begin at a page.
  static bool IsAligned(std::span<const std::byte> bytes) {
    return reinterpret_cast<uintptr_t>(bytes.data()) % kAlignment == 0;
  }

  std::byte* data() { return bytes_.get(); }
  const std::byte* data() const { return bytes_.get(); }
  size_t size() const { return size_; }
  std::span<std::byte> span() { return {bytes_.get(), size_}; }
  std::span<const std::byte> span() const { return {bytes_.get(), size_}; }

 private:
  struct Free {
    void operator()(std::byte* bytes) const { std::free(bytes); }
  };
  std::unique_ptr<std::byte, Free> bytes_;
  size_t size_ = 0;
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BASE_ALIGNED_BUFFER_H_
