// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/cluster_decoder.h"

#include <zlib.h>
#include <zstd.h>

#include "common/qcow2/format.h"
#include "gtest/gtest.h"
#include "tests/testing/random.h"
#include "tests/testing/status_matchers.h"

namespace snapsync::qcow2 {
namespace {

constexpr size_t kCluster = 65536;

using Bytes = std::vector<std::byte>;

// Text with repeats near and far.
Bytes SomeText(size_t size) {
  Random random(7);
  Bytes text(size);
  for (size_t at = 0; at < size; ++at) {
    text[at] = at > 40000 && random.Percent(99)
                   ? text[at - 33000]
                   : static_cast<std::byte>('a' + random.Below(4));
  }
  return text;
}

Bytes Deflated(const Bytes& data, int window_bits) {
  z_stream stream{};
  EXPECT_EQ(::deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, window_bits,
                           9, Z_DEFAULT_STRATEGY),
            Z_OK);
  Bytes out(::deflateBound(&stream, data.size()));
  Bytes in = data;
  stream.next_in = reinterpret_cast<Bytef*>(in.data());
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(::deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  ::deflateEnd(&stream);
  return out;
}

// As of one who does not know beforehand how much there will be.
Bytes Zstd(const Bytes& data, int window_bits = 0) {
  ZSTD_CCtx* context = ::ZSTD_createCCtx();
  ::ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, window_bits);
  Bytes out(::ZSTD_compressBound(data.size()));
  ZSTD_outBuffer filled = {out.data(), out.size(), 0};
  ZSTD_inBuffer taken = {data.data(), 1, 0};
  ::ZSTD_compressStream2(context, &filled, &taken, ZSTD_e_flush);
  taken.size = data.size();
  EXPECT_EQ(::ZSTD_compressStream2(context, &filled, &taken, ZSTD_e_end), 0U);
  ::ZSTD_freeCCtx(context);
  out.resize(filled.pos);
  return out;
}

absl::StatusOr<Bytes> Decode(uint8_t type, const Bytes& stream,
                             ClusterDecoder& decoder) {
  Bytes cluster(kCluster);
  if (auto status = decoder.Decode(type, stream, cluster); !status.ok()) {
    return status;
  }
  return cluster;
}

TEST(ClusterDecoder, ReadsStreamsAndLeavesWhatFollows) {
  const Bytes text = SomeText(kCluster);
  ClusterDecoder decoder;
  for (const uint8_t type : {kCompressionDeflate, kCompressionZstd}) {
    Bytes stream = type == kCompressionZstd ? Zstd(text) : Deflated(text, -12);
    EXPECT_LT(stream.size(), kCluster);
    for (int round = 0; round < 2; ++round) {
      const auto cluster = Decode(type, stream, decoder);
      ASSERT_THAT(cluster, IsOk());
      EXPECT_TRUE(*cluster == text);
      stream.resize(stream.size() + 500, std::byte{0xfd});
    }
  }
}

TEST(ClusterDecoder, ReadsTheLargestWindowOfDeflate) {
  const Bytes text = SomeText(kCluster);
  ClusterDecoder decoder;
  const auto cluster =
      Decode(kCompressionDeflate, Deflated(text, -15), decoder);
  ASSERT_THAT(cluster, IsOk());
  EXPECT_TRUE(*cluster == text);
}

TEST(ClusterDecoder, ACutStreamIsAnErrorWhereverItIsCut) {
  const Bytes text = SomeText(kCluster);
  ClusterDecoder decoder;
  for (const uint8_t type : {kCompressionDeflate, kCompressionZstd}) {
    const Bytes stream =
        type == kCompressionZstd ? Zstd(text) : Deflated(text, -12);
    for (size_t size = 0; size < stream.size() - 8; size += 97) {
      const Bytes cut(stream.begin(),
                      stream.begin() + static_cast<std::ptrdiff_t>(size));
      EXPECT_THAT(Decode(type, cut, decoder), FailsWith(Reason::kIo, "after"))
          << size;
    }
    // And is none the worse for it.
    EXPECT_THAT(Decode(type, stream, decoder), IsOk());
  }
}

TEST(ClusterDecoder, AClusterThatIsTooShortOrTooLongIsAnError) {
  ClusterDecoder decoder;
  EXPECT_THAT(Decode(kCompressionDeflate, Deflated(SomeText(kCluster - 1), -12),
                     decoder),
              FailsWith(Reason::kIo, "ends after 65535 bytes"));
  EXPECT_THAT(Decode(kCompressionZstd, Zstd(SomeText(kCluster - 1)), decoder),
              FailsWith(Reason::kIo, "end after 65535 bytes"));
  EXPECT_THAT(Decode(kCompressionZstd, Zstd(SomeText(kCluster + 1)), decoder),
              FailsWith(Reason::kIo, "longer than a cluster"));
}

TEST(ClusterDecoder, GarbageIsAnError) {
  ClusterDecoder decoder;
  const Bytes garbage(600, std::byte{0xff});
  EXPECT_THAT(Decode(kCompressionDeflate, garbage, decoder),
              FailsWith(Reason::kIo, "no deflate stream"));
  EXPECT_THAT(Decode(kCompressionZstd, garbage, decoder),
              FailsWith(Reason::kIo, "no zstd frame"));
}

TEST(ClusterDecoder, AFrameMayNotAskForALargeWindow) {
  ClusterDecoder decoder;
  const Bytes text = SomeText(kCluster);
  EXPECT_THAT(Decode(kCompressionZstd, Zstd(text, 23), decoder), IsOk());
  EXPECT_THAT(Decode(kCompressionZstd, Zstd(text, 24), decoder),
              FailsWith(Reason::kIo, "no zstd frame"));
}

}  // namespace
}  // namespace snapsync::qcow2
