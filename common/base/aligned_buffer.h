// SPDX-License-Identifier: Apache-2.0
//
// Bytes on the heap, aligned to a page, as O_DIRECT wants them; zeroed at
// construction. Movable, not copyable.
//
// A large one is memory that the kernel gives as zeroes, page by page when it
// is first used: what is not used costs nothing, and nothing is zeroed twice.
#ifndef SNAPSYNC_COMMON_BASE_ALIGNED_BUFFER_H_
#define SNAPSYNC_COMMON_BASE_ALIGNED_BUFFER_H_

#include <sys/mman.h>

#include <algorithm>
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
    // One of no bytes, too, has a place that memcpy() takes.
    const size_t whole = std::max(RoundUp(size, kAlignment), kAlignment);
    if (whole < kLarge) {
      Take(std::aligned_alloc(kAlignment, whole), kAlignment);
      std::memset(bytes_.get(), 0, whole);
      return;
    }
    const size_t alignment = whole < kHuge ? kAlignment : kHuge;
    Take(std::calloc(1, whole + alignment), alignment);  // knows what is zero
    // Fewer page faults; where there are no huge pages, as many as before.
    if (whole >= kHuge) ::madvise(bytes_.get(), whole, MADV_HUGEPAGE);
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
  // Bytes. From here on malloc() takes fresh memory from the kernel; and the
  // size of a huge page.
  static constexpr size_t kLarge = 128 << 10;
  static constexpr size_t kHuge = 2 << 20;

  struct Free {
    void* memory;  // in which the bytes are
    void operator()(std::byte* /*bytes*/) const { std::free(memory); }
  };

  static constexpr size_t RoundUp(size_t size, size_t alignment) {
    return (size + alignment - 1) / alignment * alignment;
  }

  void Take(void* memory, size_t alignment) {
    if (memory == nullptr) throw std::bad_alloc();
    bytes_ = {reinterpret_cast<std::byte*>(
                  RoundUp(reinterpret_cast<uintptr_t>(memory), alignment)),
              Free{memory}};
  }

  std::unique_ptr<std::byte, Free> bytes_;
  size_t size_ = 0;
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BASE_ALIGNED_BUFFER_H_
