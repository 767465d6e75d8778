// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/packet_socket.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "common/base/error.h"

namespace snapsync::qcow2 {
namespace {

// Room for one descriptor beside the data.
struct alignas(cmsghdr) ControlBuffer {
  std::array<char, CMSG_SPACE(sizeof(int))> bytes{};
};

absl::Status Gone() { return Error(Reason::kConnection, "gone"); }

UniqueFd DescriptorIn(msghdr& message) {
  for (cmsghdr* head = CMSG_FIRSTHDR(&message); head != nullptr;
       head = CMSG_NXTHDR(&message, head)) {
    if (head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS) {
      int descriptor = -1;
      std::memcpy(&descriptor, CMSG_DATA(head), sizeof descriptor);
      return UniqueFd(descriptor);
    }
  }
  return {};
}

}  // namespace

absl::StatusOr<std::pair<PacketSocket, PacketSocket>> PacketSocket::MakePair() {
  std::array<int, 2> fds{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds.data()) !=
      0) {
    return PosixError(errno, "can't make a pair of sockets");
  }
  return std::pair(PacketSocket(UniqueFd(fds[0])),
                   PacketSocket(UniqueFd(fds[1])));
}

absl::Status PacketSocket::Send(const Packer& packer, int descriptor) const {
  // sendmsg only reads from it.
  iovec data = {const_cast<std::byte*>(packer.packet().data()),
                packer.packet().size()};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  ControlBuffer control;
  if (descriptor >= 0) {
    message.msg_control = control.bytes.data();
    message.msg_controllen = control.bytes.size();
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof descriptor);
    std::memcpy(CMSG_DATA(head), &descriptor, sizeof descriptor);
  }
  while (::sendmsg(fd_.get(), &message, MSG_NOSIGNAL) < 0) {
    if (errno == EINTR) continue;
    if (errno == EPIPE || errno == ECONNRESET) return Gone();
    return PosixError(errno, "can't send a packet");
  }
  return absl::OkStatus();
}

absl::StatusOr<PacketSocket::Packet> PacketSocket::Receive(
    std::optional<std::chrono::milliseconds> timeout,
    bool with_descriptor) const {
  if (timeout) {
    pollfd poll = {fd_.get(), POLLIN, 0};
    const int ready = ::poll(&poll, 1, static_cast<int>(timeout->count()));
    if (ready == 0) {
      return Error(
          Reason::kConnection,
          "silent for " + std::to_string(timeout->count() / 1000) + " s");
    }
    if (ready < 0 && errno != EINTR) {
      return PosixError(errno, "can't wait for a packet");
    }
  }
  Packet packet;
  packet.bytes.resize(kMaxPacketBytes);
  iovec data = {packet.bytes.data(), packet.bytes.size()};
  ControlBuffer control;
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (with_descriptor) {
    message.msg_control = control.bytes.data();
    message.msg_controllen = control.bytes.size();
  }
  ssize_t got = 0;
  do {
    got = ::recvmsg(fd_.get(), &message, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0 && errno != ECONNRESET) {
    return PosixError(errno, "can't receive a packet");
  }
  if (got <= 0) return Gone();
  packet.descriptor = DescriptorIn(message);
  if ((message.msg_flags & MSG_TRUNC) != 0) {
    return Error(Reason::kIo, "a packet is too long");
  }
  packet.bytes.resize(static_cast<size_t>(got));
  return packet;
}

}  // namespace snapsync::qcow2
