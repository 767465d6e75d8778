// SPDX-License-Identifier: Apache-2.0
#include "common/base/aligned_buffer.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "gtest/gtest.h"

namespace snapsync {
namespace {

TEST(AlignedBuffer, IsAlignedAndZeroedAtAnySize) {
  constexpr size_t kHuge = size_t{4} << 20;
  // Twice, since memory that was given back has the old bytes in it.
  for (const size_t size : {size_t{1}, size_t{512}, size_t{512}, size_t{4097},
                            size_t{1} << 20, size_t{1} << 20, kHuge, kHuge}) {
    AlignedBuffer buffer(size);
    EXPECT_EQ(buffer.size(), size);
    EXPECT_EQ(buffer.span().size(), size);
    EXPECT_EQ(
        reinterpret_cast<uintptr_t>(buffer.data()) % AlignedBuffer::kAlignment,
        0U);
    EXPECT_TRUE(std::all_of(buffer.data(), buffer.data() + size,
                            [](std::byte b) { return b == std::byte{0}; }));
    std::fill_n(buffer.data(), size, std::byte{1});
  }
}

TEST(AlignedBuffer, AnEmptyOneHasNoBytes) {
  EXPECT_TRUE(AlignedBuffer().span().empty());
  EXPECT_TRUE(AlignedBuffer(0).span().empty());
}

TEST(AlignedBuffer, MovingKeepsTheBytesWhereTheyAre) {
  AlignedBuffer first(10);
  std::byte* const bytes = first.data();
  bytes[3] = std::byte{7};
  const AlignedBuffer second = std::move(first);
  EXPECT_EQ(second.data(), bytes);
  EXPECT_EQ(second.data()[3], std::byte{7});
}

}  // namespace
}  // namespace snapsync
