// SPDX-License-Identifier: Apache-2.0
//
// A reader of QCOW2 images that an image has taken over, in one way or another
// (common/qcow2/reader_protocol.h says what an honest one does).
//
//   hostile_qcow2_reader HOW
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "common/qcow2/chain.h"
#include "common/qcow2/packet_socket.h"
#include "common/qcow2/reader_protocol.h"

namespace snapsync::qcow2 {
namespace {

constexpr uint64_t kDiskBytes = 1 << 20;

[[noreturn]] void Sleep() {
  for (;;) ::pause();
}

PacketSocket::Packet Receive(const PacketSocket& socket) {
  auto packet = socket.Receive(std::nullopt, true);
  if (!packet.ok()) ::_exit(0);
  return *std::move(packet);
}

void Send(const PacketSocket& socket, const Packer& packer) {
  socket.Send(packer).IgnoreError();
}

Packer OpenQuestion(bool image, std::string_view name) {
  return Packer()
      .Put(Message::kOpen)
      .Put<uint8_t>(image ? 1 : 0)
      .Put(FileSource::Role::kBacking)
      .Put<uint32_t>(0)
      .PutText(name);
}

Packer Opened(uint64_t size) {
  return Packer()
      .Put(Message::kOpened)
      .Put(size)
      .Put<uint32_t>(3)
      .Put<uint64_t>(65536)
      .Put<uint8_t>(1)
      .PutText("no identity");
}

Packer Runs(uint32_t count) { return Packer().Put(Message::kRuns).Put(count); }

Packer OneRun(Source source, uint32_t file, uint64_t host_offset,
              uint64_t length) {
  return Runs(1).Put(source).Put(file).Put(host_offset).Put(length);
}

Packer Extents(uint64_t next, uint32_t count) {
  return Packer().Put(Message::kExtents).Put(next).Put(count);
}

// Instead of the handshake, or of the rest of it.
void SpoilOpening(const std::string& how, const PacketSocket& control) {
  if (how == "exit") ::_exit(3);
  if (how == "out_of_memory") ::_exit(kOutOfMemoryStatus);
  if (how == "crash") ::raise(SIGKILL);
  if (how == "silence") Sleep();
  Receive(control);
  if (how == "garbage") Send(control, Packer().PutText("garbage"));
  if (how == "empty_packet") Send(control, Packer());
  if (how == "failure") {
    Send(control, Packer()
                      .Put(Message::kFailed)
                      .Put<uint32_t>(4000000000)
                      .PutText("\x1b[2J" + std::string(10000, 'x')));
  }
  if (how == "passwd") {
    Send(control, OpenQuestion(true, ""));
    Receive(control);
    Send(control, OpenQuestion(false, "/etc/passwd"));
  }
  if (how == "named_before_the_image") {
    Send(control, OpenQuestion(false, "disk.qcow2"));
  }
  if (how == "the_image_twice") {
    Send(control, OpenQuestion(true, ""));
    Receive(control);
    Send(control, OpenQuestion(true, ""));
  }
  if (how == "another_role") {
    Send(control, Packer()
                      .Put(Message::kOpen)
                      .Put<uint8_t>(1)
                      .Put<uint8_t>(7)
                      .Put<uint32_t>(0)
                      .PutText(""));
  }
  if (how == "no_files") Send(control, Opened(kDiskBytes));
  Send(control, OpenQuestion(true, ""));
  Receive(control);
  if (how == "odd_size") Send(control, Opened(kDiskBytes + 1));
  if (how == "huge_size") Send(control, Opened(uint64_t{1} << 63U));
  if (how == "silence_later") Sleep();
}

// Instead of what a request asks for. `length` of it is at least 2 sectors.
Packer Spoiled(const std::string& how, uint64_t offset, uint64_t length) {
  const std::map<std::string, Packer> answers = {
      {"no_runs", Runs(0)},
      {"too_many_runs", Runs(100000)},
      {"runs_cut", Runs(2).Put(Source::kZero)},
      {"run_of_nothing", OneRun(Source::kZero, 0, 0, 0)},
      {"run_too_long", OneRun(Source::kZero, 0, 0, length + 512)},
      {"run_endless", OneRun(Source::kZero, 0, 0, UINT64_MAX - 511)},
      {"run_odd", OneRun(Source::kZero, 0, 0, 513)},
      {"another_source", OneRun(static_cast<Source>(9), 0, 0, length)},
      {"another_file", OneRun(Source::kFile, 1, 0, length)},
      {"odd_offset", OneRun(Source::kFile, 0, 1, 512)},
      {"beyond_the_file", OneRun(Source::kFile, 0, uint64_t{1} << 40U, 512)},
      {"around_the_end", OneRun(Source::kFile, 0, UINT64_MAX - 511, length)},
      {"bytes_left_over", OneRun(Source::kZero, 0, 0, length).Put<uint8_t>(0)},
      {"another_message", Extents(offset + length, 0)},
      {"long_packet", Packer().PutText(std::string(150000, 'x'))},
  };
  return answers.at(how);
}

Packer SpoiledExtents(const std::string& how, uint64_t offset) {
  const auto one = [](uint64_t next, uint64_t at, uint64_t length) {
    return Extents(next, 1).Put(at).Put(length);
  };
  if (how == "extents_stand_still") return Extents(offset, 0);
  if (how == "extents_beyond_the_end") return Extents(kDiskBytes + 512, 0);
  if (how == "extents_past_next") return one(512, 512, 512);
  if (how == "extents_endless") return one(kDiskBytes, 512, UINT64_MAX - 511);
  if (how == "extents_odd") return one(kDiskBytes, 1, 511);
  if (how == "extents_cut") return Extents(kDiskBytes, 1);
  if (how == "extents_flood") return Extents(kDiskBytes, UINT32_MAX);
  if (how == "extents_backwards") {
    return Extents(kDiskBytes, 2)
        .Put<uint64_t>(512)
        .Put<uint64_t>(512)
        .Put<uint64_t>(0)
        .Put<uint64_t>(512);
  }
  return one(kDiskBytes, 0, kDiskBytes);
}

[[noreturn]] void Misbehave(const std::string& how) {
  const PacketSocket control{UniqueFd(kControlFd)};
  const PacketSocket channel{UniqueFd(kFirstChannelFd)};
  SpoilOpening(how, control);
  Send(control, Opened(kDiskBytes));
  for (;;) {
    const PacketSocket::Packet packet = Receive(channel);
    Unpacker unpacker(packet.bytes);
    const auto message = unpacker.Get<Message>();
    const auto offset = unpacker.Get<uint64_t>();
    const auto length = unpacker.Get<uint64_t>();
    if (message == Message::kExtents) {
      Send(channel, SpoiledExtents(how, offset));
      continue;
    }
    if (how == "crash_when_read") ::raise(SIGKILL);
    if (how == "silence_when_read") Sleep();
    Send(channel, Spoiled(how, offset, length));
  }
}

}  // namespace
}  // namespace snapsync::qcow2

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  snapsync::qcow2::Misbehave(argv[1]);
}
