// SPDX-License-Identifier: Apache-2.0
//
// Packets between a program and the confined process that reads an image for
// it, over a pair of sockets that keep packets whole, and the values in them.
// Both ends are of one build: values are in the machine's own form.
//
// A socket is used by one thread at a time. Errors: kConnection when the other
// end is gone (its text is "gone") or silent, kIo else.
#ifndef SNAPSYNC_COMMON_QCOW2_PACKET_SOCKET_H_
#define SNAPSYNC_COMMON_QCOW2_PACKET_SOCKET_H_

#include <chrono>
#include <cstddef>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"

namespace snapsync::qcow2 {

// What is to be in a packet.
class Packer {
 public:
  template <typename T>
  Packer& Put(T value) {
    static_assert(std::is_integral_v<T> || std::is_enum_v<T>);
    const auto bytes = std::as_bytes(std::span(&value, 1));
    packet_.insert(packet_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  Packer& PutText(std::string_view text) {
    Put<uint32_t>(static_cast<uint32_t>(text.size()));
    const auto bytes = std::as_bytes(std::span(text));
    packet_.insert(packet_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  std::span<const std::byte> packet() const { return packet_; }

 private:
  std::vector<std::byte> packet_;
};

// What was in a packet. A value that is not there is 0 or empty; Complete()
// says at the end whether all were there and nothing else.
class Unpacker {
 public:
  explicit Unpacker(std::span<const std::byte> packet) : rest_(packet) {}

  template <typename T>
  T Get() {
    static_assert(std::is_integral_v<T> || std::is_enum_v<T>);
    T value{};
    if (!Has(sizeof value)) return value;
    std::memcpy(&value, rest_.data(), sizeof value);
    rest_ = rest_.subspan(sizeof value);
    return value;
  }
  std::string GetText() {
    const auto length = Get<uint32_t>();
    if (!Has(length)) return {};
    std::string text(reinterpret_cast<const char*>(rest_.data()), length);
    rest_ = rest_.subspan(length);
    return text;
  }
  bool Complete() const { return !short_ && rest_.empty(); }

 private:
  bool Has(size_t bytes) {
    short_ = short_ || rest_.size() < bytes;
    return !short_;
  }

  std::span<const std::byte> rest_;
  bool short_ = false;
};

class PacketSocket {
 public:
  // No packet is longer.
  static constexpr size_t kMaxPacketBytes = 96 * 1024;

  explicit PacketSocket(UniqueFd fd) : fd_(std::move(fd)) {}
  // Two ends, both closed on exec.
  static absl::StatusOr<std::pair<PacketSocket, PacketSocket>> MakePair();

  int fd() const { return fd_.get(); }

  // Passes a descriptor along if it is not negative.
  absl::Status Send(const Packer& packer, int descriptor = -1) const;

  struct Packet {
    std::vector<std::byte> bytes;
    UniqueFd descriptor;  // only if it was asked for
  };
  // nullopt: waits for as long as it takes. A descriptor that was not asked for
  // is never taken.
  absl::StatusOr<Packet> Receive(
      std::optional<std::chrono::milliseconds> timeout,
      bool with_descriptor = false) const;

 private:
  UniqueFd fd_;
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_PACKET_SOCKET_H_
