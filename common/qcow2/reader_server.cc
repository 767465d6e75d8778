// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/reader_server.h"

#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/error.h"
#include "common/base/mutex.h"
#include "common/base/status_macros.h"
#include "common/block/extent.h"
#include "common/qcow2/chain.h"
#include "common/qcow2/packet_socket.h"
#include "common/qcow2/reader_protocol.h"
#include "common/qcow2/sandbox.h"

namespace snapsync::qcow2 {
namespace {

constexpr auto kAtWorkEvery = std::chrono::seconds(1);

absl::Status Misunderstood() {
  return Error(Reason::kOther, "a packet that is none of the protocol");
}

// Files are opened by the program at the other end.
class RemoteFiles final : public FileSource {
 public:
  explicit RemoteFiles(const PacketSocket& control) : control_(control) {}

  absl::StatusOr<NumberedFile> OpenImage() override {
    return Ask(Packer()
                   .Put(Message::kOpen)
                   .Put<uint8_t>(1)
                   .Put(Role::kBacking)
                   .Put<uint32_t>(0)
                   .PutText(""));
  }
  absl::StatusOr<NumberedFile> OpenNamed(Role role, uint32_t by,
                                         const std::string& name) override {
    return Ask(Packer()
                   .Put(Message::kOpen)
                   .Put<uint8_t>(0)
                   .Put(role)
                   .Put(by)
                   .PutText(name));
  }

 private:
  // A refusal ends the process instead of being answered.
  absl::StatusOr<NumberedFile> Ask(const Packer& question) {
    SNAPSYNC_RETURN_IF_ERROR(control_.Send(question));
    SNAPSYNC_ASSIGN_OR_RETURN(PacketSocket::Packet packet,
                              control_.Receive(std::nullopt, true));
    Unpacker unpacker(packet.bytes);
    const auto message = unpacker.Get<Message>();
    NumberedFile file;
    file.number = unpacker.Get<uint32_t>();
    const auto size = unpacker.Get<uint64_t>();
    const std::string name = unpacker.GetText();
    if (message != Message::kFile || !unpacker.Complete() ||
        !packet.descriptor.valid()) {
      return Misunderstood();
    }
    file.file = HostFile::Make(std::move(packet.descriptor), name, size);
    return file;
  }

  const PacketSocket& control_;
};

// Answers the requests of one channel, one after the other.
class Channel {
 public:
  Channel(PacketSocket socket, const Chain& chain, std::span<std::byte> slots)
      : socket_(std::move(socket)), chain_(chain), slots_(slots) {}

  absl::Status Serve() {
    for (;;) {
      SNAPSYNC_ASSIGN_OR_RETURN(const PacketSocket::Packet packet,
                                socket_.Receive(std::nullopt));
      absl::StatusOr<Packer> answer = Answer(packet.bytes);
      if (!answer.ok()) answer = PackFailure(answer.status());
      SNAPSYNC_RETURN_IF_ERROR(socket_.Send(*answer));
    }
  }

 private:
  struct Answered {
    Source source;
    uint32_t file;
    uint64_t host_offset;
    uint64_t length;
  };

  absl::StatusOr<Packer> Answer(std::span<const std::byte> packet) {
    Unpacker unpacker(packet);
    const auto message = unpacker.Get<Message>();
    const auto offset = unpacker.Get<uint64_t>();
    if (message == Message::kExtents && unpacker.Complete() &&
        offset <= chain_.size()) {
      return Extents(offset);
    }
    const auto length = unpacker.Get<uint64_t>();
    const auto slot = unpacker.Get<uint32_t>();
    if (message != Message::kRead || !unpacker.Complete() ||
        offset > chain_.size() || length > chain_.size() - offset ||
        length > kSlotBytes || slot >= kSlotsPerChannel) {
      return Misunderstood();
    }
    return Runs({offset, length},
                slots_.subspan(slot * kSlotBytes, kSlotBytes));
  }

  // As much of the range as fits into an answer.
  absl::StatusOr<Packer> Runs(Extent range, std::span<std::byte> slot) {
    std::vector<Answered> runs;
    for (uint64_t at = range.offset;
         at < range.end() && runs.size() < kMaxRunsInPacket;) {
      SNAPSYNC_ASSIGN_OR_RETURN(const Run run, chain_.FindRun(at, range.end()));
      Answered next = {Source::kZero, 0, 0, run.length};
      if (run.kind == Run::Kind::kData) {
        next.source = Source::kFile;
        next.file = run.file;
        next.host_offset = run.host_offset;
      } else if (run.kind == Run::Kind::kCompressed) {
        next.source = Source::kSlot;
        SNAPSYNC_RETURN_IF_ERROR(chain_.Decode(
            run, scratch_, slot.subspan(at - range.offset, run.length)));
      }
      if (next.source != Source::kFile && !runs.empty() &&
          runs.back().source == next.source) {
        runs.back().length += next.length;
      } else {
        runs.push_back(next);
      }
      at += run.length;
    }
    Packer answer;
    answer.Put(Message::kRuns)
        .Put<uint32_t>(static_cast<uint32_t>(runs.size()));
    for (const Answered& run : runs) {
      answer.Put(run.source).Put(run.file).Put(run.host_offset).Put(run.length);
    }
    return answer;
  }

  absl::StatusOr<Packer> Extents(uint64_t offset) {
    std::vector<Extent> extents;
    SNAPSYNC_ASSIGN_OR_RETURN(
        const uint64_t next,
        chain_.FindData(offset, kMaxExtentsInPacket, extents));
    Packer answer;
    answer.Put(Message::kExtents)
        .Put(next)
        .Put<uint32_t>(static_cast<uint32_t>(extents.size()));
    for (const Extent& extent : extents) {
      answer.Put(extent.offset).Put(extent.length);
    }
    return answer;
  }

  const PacketSocket socket_;
  const Chain& chain_;
  const std::span<std::byte> slots_;
  DecoderScratch scratch_;
};

// The threads are there before the image is: none can be started later. Never
// destroyed: the process ends instead.
class Server {
 public:
  Server(const PacketSocket& control, std::span<std::byte> memory,
         size_t channels)
      : control_(control), memory_(memory) {
    for (size_t index = 0; index < channels; ++index) {
      std::thread([this, index] { Serve(index); }).detach();
    }
    // What a thread calls before it runs code of ours may not be allowed later.
    MutexLock lock(&mutex_);
    const auto all_run = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return running_ == channels;
    };
    mutex_.Await(all_run);
  }

  absl::Status Open(const ChainOptions& options) {
    RemoteFiles files(control_);
    auto last = std::chrono::steady_clock::now();
    const auto at_work = [&] {
      const auto now = std::chrono::steady_clock::now();
      if (now - last < kAtWorkEvery) return;
      last = now;
      // If nobody is there any more, the next question fails.
      control_.Send(Packer().Put(Message::kAtWork)).IgnoreError();
    };
    SNAPSYNC_ASSIGN_OR_RETURN(std::unique_ptr<const Chain> chain,
                              Chain::Open(files, options, at_work));
    SNAPSYNC_RETURN_IF_ERROR(control_.Send(FactsOf(*chain)));
    MutexLock lock(&mutex_);
    chain_ = std::move(chain);
    return absl::OkStatus();
  }

 private:
  static Packer FactsOf(const Chain& chain) {
    const Header& header = chain.header();
    const std::vector<std::byte> identity =
        header.identity ? EncodeIdentity(*header.identity)
                        : std::vector<std::byte>();
    Packer facts;
    facts.Put(Message::kOpened)
        .Put<uint64_t>(chain.size())
        .Put<uint32_t>(header.version)
        .Put<uint64_t>(header.cluster_size())
        .Put<uint8_t>(header.untouched ? 1 : 0)
        .PutText(
            {reinterpret_cast<const char*>(identity.data()), identity.size()});
    return facts;
  }

  void Serve(size_t index) {
    const Chain* chain = nullptr;
    {
      MutexLock lock(&mutex_);
      ++running_;
      const auto opened = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return chain_ != nullptr;
      };
      mutex_.Await(opened);
      chain = chain_.get();
    }
    constexpr size_t kBytes = kSlotsPerChannel * kSlotBytes;
    Channel channel(
        PacketSocket(UniqueFd(kFirstChannelFd + static_cast<int>(index))),
        *chain, memory_.subspan(index * kBytes, kBytes));
    // It ends when the other end is gone, and then the main thread sees it,
    // too.
    channel.Serve().IgnoreError();
  }

  const PacketSocket& control_;
  const std::span<std::byte> memory_;
  Mutex mutex_;
  size_t running_ ABSL_GUARDED_BY(mutex_) = 0;
  std::unique_ptr<const Chain> chain_ ABSL_GUARDED_BY(mutex_);
};

struct Start {
  size_t channels = 0;
  ChainOptions options;
};

absl::StatusOr<Start> ReceiveStart(const PacketSocket& control) {
  SNAPSYNC_ASSIGN_OR_RETURN(const PacketSocket::Packet packet,
                            control.Receive(std::nullopt));
  Unpacker unpacker(packet.bytes);
  const auto message = unpacker.Get<Message>();
  const auto version = unpacker.Get<uint32_t>();
  if (message != Message::kStart || version != kReaderProtocolVersion) {
    return Error(Reason::kOther,
                 std::string(kReaderProgram) +
                     " is of another release than the program that started "
                     "it: restart that one");
  }
  Start start;
  start.channels = unpacker.Get<uint32_t>();
  start.options.allow_corrupt = unpacker.Get<uint8_t>() != 0;
  start.options.unrecorded_backing_format = unpacker.GetText();
  if (!unpacker.Complete() || start.channels == 0 ||
      start.channels > kMaxChannels) {
    return Misunderstood();
  }
  return start;
}

absl::StatusOr<std::span<std::byte>> MapMemory(size_t channels) {
  const size_t bytes = channels * kSlotsPerChannel * kSlotBytes;
  void* memory =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, kMemoryFd, 0);
  if (memory == MAP_FAILED) {
    return PosixError(errno, "the shared memory can't be mapped");
  }
  return std::span(static_cast<std::byte*>(memory), bytes);
}

absl::Status Serve(const PacketSocket& control) {
  SNAPSYNC_ASSIGN_OR_RETURN(const Start start, ReceiveStart(control));
  SNAPSYNC_RETURN_IF_ERROR(GiveUpRights());
  SNAPSYNC_ASSIGN_OR_RETURN(const std::span<std::byte> memory,
                            MapMemory(start.channels));
  auto* server = new Server(control, memory, start.channels);
  SNAPSYNC_RETURN_IF_ERROR(GiveUpSystemCalls());
  SNAPSYNC_RETURN_IF_ERROR(server->Open(start.options));
  // Nothing more is said here: this waits for the other end to be gone.
  return control.Receive(std::nullopt).status();
}

}  // namespace

void RunReaderServer() {
  // Threads share one heap: one for each would reserve more addresses than
  // there are to be.
  ::mallopt(M_ARENA_MAX, 1);
  std::set_new_handler([] { ::_exit(kOutOfMemoryStatus); });

  const PacketSocket control{UniqueFd(kControlFd)};
  const absl::Status status = Serve(control);
  if (!status.ok()) control.Send(PackFailure(status)).IgnoreError();
  ::_exit(0);
}

}  // namespace snapsync::qcow2
