// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/cluster_encoder.h"

#include <zlib.h>
#include <zstd.h>

#include <new>

#include "common/qcow2/format.h"

namespace snapsync::qcow2 {
namespace {

constexpr int kZstdLevel = 3;
constexpr int kEncoderWindowBits = -12;  // negative: raw
constexpr int kDeflateMemoryLevel = 9;

}  // namespace

struct ClusterEncoder::Deflater {
  Deflater() {
    if (::deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED,
                       kEncoderWindowBits, kDeflateMemoryLevel,
                       Z_DEFAULT_STRATEGY) != Z_OK) {
      throw std::bad_alloc();
    }
  }
  ~Deflater() { ::deflateEnd(&stream); }
  Deflater(const Deflater&) = delete;
  Deflater& operator=(const Deflater&) = delete;

  z_stream stream{};
};

struct ClusterEncoder::ZstdContext {
  ZstdContext() : context(::ZSTD_createCCtx()) {
    if (context == nullptr) throw std::bad_alloc();
  }
  ~ZstdContext() { ::ZSTD_freeCCtx(context); }
  ZstdContext(const ZstdContext&) = delete;
  ZstdContext& operator=(const ZstdContext&) = delete;

  ZSTD_CCtx* const context;
};

ClusterEncoder::ClusterEncoder(uint8_t type) {
  if (type == kCompressionZstd) {
    zstd_ = std::make_unique<ZstdContext>();
  } else {
    deflater_ = std::make_unique<Deflater>();
  }
}

ClusterEncoder::~ClusterEncoder() = default;

size_t ClusterEncoder::Encode(std::span<const std::byte> cluster,
                              std::span<std::byte> out) {
  if (zstd_ != nullptr) {
    const size_t written =
        ::ZSTD_compressCCtx(zstd_->context, out.data(), out.size(),
                            cluster.data(), cluster.size(), kZstdLevel);
    return ::ZSTD_isError(written) != 0 ? 0 : written;
  }
  z_stream& stream = deflater_->stream;
  if (::deflateReset(&stream) != Z_OK) return 0;
  // zlib does not write to its input, whatever the type says.
  stream.next_in =
      reinterpret_cast<Bytef*>(const_cast<std::byte*>(cluster.data()));
  stream.avail_in = static_cast<uInt>(cluster.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  if (::deflate(&stream, Z_FINISH) != Z_STREAM_END) return 0;
  return out.size() - stream.avail_out;
}

}  // namespace snapsync::qcow2
