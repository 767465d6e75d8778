// SPDX-License-Identifier: Apache-2.0
#include "common/block/content_sample.h"

#include "common/base/units.h"
#include "gtest/gtest.h"
#include "tests/testing/memory_device.h"
#include "tests/testing/random.h"
#include "tests/testing/status_matchers.h"

namespace snapsync {
namespace {

ContentSample Sample(const std::shared_ptr<MemoryDevice>& device) {
  MemoryReader reader(device);
  const auto sample = SampleContent(reader);
  EXPECT_THAT(sample, IsOk());
  return *sample;
}

TEST(ContentSample, AReadErrorIsPassedOn) {
  const auto device = std::make_shared<MemoryDevice>(kMiB);
  device->before = [](std::string_view) {
    return Error(Reason::kIo, "broken");
  };
  MemoryReader reader(device);
  EXPECT_THAT(SampleContent(reader), FailsWith(Reason::kIo, "broken"));
}

TEST(ContentSample, AByteInTheFirstOrLastMebibyteIsSeen) {
  for (const uint64_t size :
       {uint64_t{512}, kMiB - 512, kMiB, 3 * kMiB + 512, 20 * kMiB}) {
    const auto device = std::make_shared<MemoryDevice>(size);
    const ContentSample blank = Sample(device);
    EXPECT_TRUE(blank.all_zero);
    EXPECT_EQ(Sample(device).fingerprint, blank.fingerprint);
    for (const uint64_t at : {uint64_t{0}, std::min(size, kMiB) - 1, size - 1,
                              size - std::min(size, kMiB)}) {
      device->bytes[at] = std::byte{1};
      EXPECT_FALSE(Sample(device).all_zero) << at << " of " << size;
      EXPECT_NE(Sample(device).fingerprint, blank.fingerprint);
      device->bytes[at] = std::byte{0};
    }
  }
}

TEST(ContentSample, AnotherContentsInTheMiddleIsSeen) {
  const auto device = std::make_shared<MemoryDevice>(20 * kMiB);
  const ContentSample blank = Sample(device);
  for (uint64_t at = 5 * kMiB; at < 10 * kMiB; at += 4096) {
    device->bytes[at] = std::byte{1};
  }
  EXPECT_FALSE(Sample(device).all_zero);
  EXPECT_NE(Sample(device).fingerprint, blank.fingerprint);
}

TEST(ContentSample, TheSizeCounts) {
  EXPECT_NE(Sample(std::make_shared<MemoryDevice>(kMiB)).fingerprint,
            Sample(std::make_shared<MemoryDevice>(2 * kMiB)).fingerprint);
}

TEST(ContentSample, AnEmptyDeviceIsAllZero) {
  EXPECT_TRUE(Sample(std::make_shared<MemoryDevice>(0)).all_zero);
}

}  // namespace
}  // namespace snapsync
