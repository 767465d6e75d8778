// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/cluster_decoder.h"

#include <zlib.h>
#include <zstd.h>

#include <string>
#include <utility>

#include "common/base/error.h"
#include "common/qcow2/format.h"

namespace snapsync::qcow2 {
namespace {

// QEMU writes windows of 12 bits, other programs up to all that there are.
constexpr int kDecoderWindowBits = -15;
constexpr int kZstdWindowBits = 23;

absl::Status Bad(const std::string& what) { return Error(Reason::kIo, what); }

}  // namespace

struct ClusterDecoder::Inflater {
  ~Inflater() {
    if (ready) ::inflateEnd(&stream);
  }
  z_stream stream{};
  bool ready = false;
};

struct ClusterDecoder::ZstdContext {
  ~ZstdContext() { ::ZSTD_freeDCtx(context); }
  ZSTD_DCtx* context = ::ZSTD_createDCtx();
};

ClusterDecoder::ClusterDecoder() = default;
ClusterDecoder::~ClusterDecoder() = default;

absl::Status ClusterDecoder::Decode(uint8_t type,
                                    std::span<const std::byte> stream,
                                    std::span<std::byte> cluster) {
  return type == kCompressionZstd ? Unzstd(stream, cluster)
                                  : Inflate(stream, cluster);
}

absl::Status ClusterDecoder::Inflate(std::span<const std::byte> stream,
                                     std::span<std::byte> cluster) {
  if (inflater_ == nullptr) {
    auto made = std::make_unique<Inflater>();
    if (::inflateInit2(&made->stream, kDecoderWindowBits) != Z_OK) {
      return Bad("no memory to inflate");
    }
    made->ready = true;
    inflater_ = std::move(made);
  } else {
    ::inflateReset(&inflater_->stream);
  }
  z_stream& state = inflater_->stream;
  // zlib only reads from it.
  state.next_in =
      const_cast<Bytef*>(reinterpret_cast<const Bytef*>(stream.data()));
  state.avail_in = static_cast<uInt>(stream.size());
  state.next_out = reinterpret_cast<Bytef*>(cluster.data());
  state.avail_out = static_cast<uInt>(cluster.size());
  const int result = ::inflate(&state, Z_FINISH);
  if (result != Z_STREAM_END && result != Z_OK && result != Z_BUF_ERROR) {
    return Bad("no deflate stream");
  }
  if (state.avail_out != 0) {
    return Bad("its deflate stream ends after " +
               std::to_string(cluster.size() - state.avail_out) + " bytes");
  }
  return absl::OkStatus();
}

absl::Status ClusterDecoder::Unzstd(std::span<const std::byte> stream,
                                    std::span<std::byte> cluster) {
  if (zstd_ == nullptr) {
    auto made = std::make_unique<ZstdContext>();
    if (made->context == nullptr) return Bad("no memory for zstd");
    ::ZSTD_DCtx_setParameter(made->context, ZSTD_d_windowLogMax,
                             kZstdWindowBits);
    zstd_ = std::move(made);
  }
  ::ZSTD_DCtx_reset(zstd_->context, ZSTD_reset_session_only);
  ZSTD_inBuffer in = {stream.data(), stream.size(), 0};
  ZSTD_outBuffer out = {cluster.data(), cluster.size(), 0};
  size_t left = 1;  // of the frame; 0 at its end
  while (out.pos < out.size) {
    const size_t in_before = in.pos;
    const size_t out_before = out.pos;
    left = ::ZSTD_decompressStream(zstd_->context, &out, &in);
    if (::ZSTD_isError(left) != 0) {
      return Bad(std::string("no zstd frame: ") + ::ZSTD_getErrorName(left));
    }
    if (in.pos == in_before && out.pos == out_before) {
      return Bad("its zstd frames end after " + std::to_string(out.pos) +
                 " bytes");
    }
  }
  if (left != 0) return Bad("its zstd frame is longer than a cluster");
  return absl::OkStatus();
}

}  // namespace snapsync::qcow2
