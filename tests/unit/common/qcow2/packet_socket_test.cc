// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/packet_socket.h"

#include <fcntl.h>

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync::qcow2 {
namespace {

constexpr auto kSoon = std::chrono::milliseconds(10);

TEST(Packets, AreUnpackedAsTheyWerePacked) {
  Packer packer;
  packer.Put<uint8_t>(7).Put<uint64_t>(1U << 20U).PutText("text").PutText("");
  Unpacker unpacker(packer.packet());
  EXPECT_EQ(unpacker.Get<uint8_t>(), 7);
  EXPECT_EQ(unpacker.Get<uint64_t>(), 1U << 20U);
  EXPECT_EQ(unpacker.GetText(), "text");
  EXPECT_FALSE(unpacker.Complete());
  EXPECT_EQ(unpacker.GetText(), "");
  EXPECT_TRUE(unpacker.Complete());
}

TEST(Packets, WhatIsNotThereIsNothingAndIncomplete) {
  Packer packer;
  packer.Put<uint32_t>(UINT32_MAX).Put<uint8_t>(1);
  Unpacker text(packer.packet());
  EXPECT_EQ(text.GetText(), "");
  EXPECT_EQ(text.Get<uint8_t>(), 0);
  EXPECT_FALSE(text.Complete());
  Unpacker number(packer.packet());
  EXPECT_EQ(number.Get<uint64_t>(), 0U);
  EXPECT_FALSE(number.Complete());
  EXPECT_TRUE(Unpacker({}).Complete());
}

TEST(PacketSocket, KeepsPacketsWhole) {
  const auto pair = PacketSocket::MakePair();
  ASSERT_THAT(pair, IsOk());
  const std::string large(PacketSocket::kMaxPacketBytes - 4, 'x');
  ASSERT_THAT(pair->first.Send(Packer().PutText("one")), IsOk());
  ASSERT_THAT(pair->first.Send(Packer().PutText(large)), IsOk());
  for (const std::string& expected : {std::string("one"), large}) {
    const auto packet = pair->second.Receive(kSoon);
    ASSERT_THAT(packet, IsOk());
    Unpacker unpacker(packet->bytes);
    EXPECT_EQ(unpacker.GetText(), expected);
    EXPECT_TRUE(unpacker.Complete());
  }
}

TEST(PacketSocket, SaysWhenTheOtherEndIsSilentOrGone) {
  auto pair = PacketSocket::MakePair();
  ASSERT_THAT(pair, IsOk());
  EXPECT_THAT(pair->first.Receive(kSoon),
              FailsWith(Reason::kConnection, "silent"));
  { const PacketSocket closed = std::move(pair->second); }
  EXPECT_THAT(pair->first.Receive(std::nullopt),
              FailsWith(Reason::kConnection, "gone"));
  EXPECT_THAT(pair->first.Send(Packer().PutText("x")),
              FailsWith(Reason::kConnection, "gone"));
}

TEST(PacketSocket, TakesADescriptorOnlyWhereItIsExpected) {
  TemporaryFolder folder;
  WriteContents(folder / "file", "contents");
  const UniqueFd file(::open((folder / "file").c_str(), O_RDONLY | O_CLOEXEC));
  const auto pair = PacketSocket::MakePair();
  ASSERT_THAT(pair, IsOk());
  for (const bool expected : {true, false}) {
    ASSERT_THAT(pair->first.Send(Packer().PutText("x"), file.get()), IsOk());
    const auto packet = pair->second.Receive(kSoon, expected);
    ASSERT_THAT(packet, IsOk());
    ASSERT_EQ(packet->descriptor.valid(), expected);
    if (!expected) continue;
    std::string read(8, ' ');
    EXPECT_EQ(::pread(packet->descriptor.get(), read.data(), 8, 0), 8);
    EXPECT_EQ(read, "contents");
  }
}

TEST(PacketSocket, APacketThatIsTooLongIsAnError) {
  const auto pair = PacketSocket::MakePair();
  ASSERT_THAT(pair, IsOk());
  ASSERT_THAT(pair->first.Send(Packer().PutText(
                  std::string(PacketSocket::kMaxPacketBytes, 'x'))),
              IsOk());
  EXPECT_THAT(pair->second.Receive(kSoon), FailsWith(Reason::kIo, "too long"));
}

}  // namespace
}  // namespace snapsync::qcow2
