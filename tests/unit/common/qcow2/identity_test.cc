// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/identity.h"

#include <algorithm>
#include <array>

#include "gtest/gtest.h"

namespace snapsync::qcow2 {
namespace {

Identity Example() {
  Identity identity;
  identity.replication = "nightly";
  identity.generation = *Id128::Parse("00112233445566778899aabbccddeeff");
  identity.previous = *Id128::Parse("ffeeddccbbaa99887766554433221100");
  identity.number = 7;
  identity.unix_seconds = 1800000000;
  return identity;
}

TEST(Identity, IsReadBackAsItWasWritten) {
  EXPECT_EQ(DecodeIdentity(EncodeIdentity(Example())), Example());
  Identity longest = Example();
  longest.replication = std::string(Identity::kMaxReplicationBytes, 'x');
  const std::vector<std::byte> data = EncodeIdentity(longest);
  EXPECT_EQ(data.size(), Identity::kMaxBytes);
  EXPECT_EQ(DecodeIdentity(data), longest);
}

TEST(Identity, OfAnotherLengthOrVersionIsNone) {
  std::vector<std::byte> data = EncodeIdentity(Example());
  for (size_t length = 0; length < data.size(); ++length) {
    EXPECT_EQ(DecodeIdentity({data.data(), length}), std::nullopt) << length;
  }
  data.push_back(std::byte{0});
  EXPECT_EQ(DecodeIdentity(data), std::nullopt);
  data.pop_back();
  data[3] = std::byte{2};
  EXPECT_EQ(DecodeIdentity(data), std::nullopt);
}

TEST(Identity, AnyChangedBitOfTheSectorBreaksTheSeal) {
  constexpr size_t kDataAt = 176;
  std::array<std::byte, 512> sector{};
  const std::vector<std::byte> data = EncodeIdentity(Example());
  std::copy(data.begin(), data.end(), sector.begin() + kDataAt);
  SealIdentity(sector, kDataAt);
  EXPECT_TRUE(IdentityIsSealed(sector, kDataAt));
  for (size_t bit = 0; bit < sector.size() * 8; ++bit) {
    sector[bit / 8] ^= std::byte{1} << (bit % 8);
    EXPECT_FALSE(IdentityIsSealed(sector, kDataAt)) << bit;
    sector[bit / 8] ^= std::byte{1} << (bit % 8);
  }
  // Where there is no room for one there is none.
  EXPECT_FALSE(IdentityIsSealed(sector, 512));
}

}  // namespace
}  // namespace snapsync::qcow2
