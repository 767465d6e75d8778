// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/confined_image.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "common/base/error.h"
#include "common/base/mutex.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "common/qcow2/extent_collector.h"
#include "common/qcow2/reader_process.h"
#include "common/qcow2/reader_protocol.h"
#include "common/qcow2/sector_reader.h"

namespace snapsync::qcow2 {
namespace {

bool IsWholeSectors(uint64_t bytes) { return bytes % kSectorBytes == 0; }

// Reads that lie one after the other on the disk, asked for as one.
struct Range {
  uint64_t offset = 0;
  uint64_t length = 0;
  std::deque<std::span<std::byte>> buffers;  // what is not filled yet

  // The next `length` bytes at most that are in one piece.
  std::span<std::byte> Take(uint64_t length_wanted) {
    std::span<std::byte>& first = buffers.front();
    const size_t taken = std::min<uint64_t>(first.size(), length_wanted);
    const std::span<std::byte> out = first.first(taken);
    first = first.subspan(taken);
    if (first.empty()) buffers.pop_front();
    offset += taken;
    length -= taken;
    return out;
  }
};

std::deque<Range> RangesOf(std::span<const ReadOperation> operations) {
  std::deque<Range> ranges;
  for (const ReadOperation& operation : operations) {
    for (size_t done = 0; done < operation.data.size();) {
      const uint64_t at = operation.offset + done;
      if (ranges.empty() || ranges.back().length == kSlotBytes ||
          ranges.back().offset + ranges.back().length != at) {
        ranges.push_back({at, 0, {}});
      }
      Range& range = ranges.back();
      const auto piece = operation.data.subspan(
          done, std::min<uint64_t>(operation.data.size() - done,
                                   kSlotBytes - range.length));
      range.buffers.push_back(piece);
      range.length += piece.size();
      done += piece.size();
    }
  }
  return ranges;
}

class ConfinedImage final : public Image {
 public:
  ConfinedImage(std::string name, std::unique_ptr<const ImageFiles> files,
                std::unique_ptr<SectorReader> sectors,
                std::unique_ptr<ReaderProcess> process, size_t channels,
                uint64_t size, ImageFacts facts)
      : name_(std::move(name)),
        files_(std::move(files)),
        sectors_(std::move(sectors)),
        process_(std::move(process)),
        size_(size),
        facts_(std::move(facts)) {
    // Taken from the back: the first one first.
    for (size_t index = channels; index > 0; --index) {
      idle_.push_back(index - 1);
    }
  }

  const std::string& name() const override { return name_; }
  uint64_t size() const override { return size_; }
  const ImageFacts& facts() const override { return facts_; }
  std::string FileVersions() const override { return files_->Versions(); }

  absl::Status Read(std::span<const ReadOperation> operations) override {
    for (const ReadOperation& operation : operations) {
      SNAPSYNC_RETURN_IF_ERROR(CheckRange(*this, operation));
    }
    std::deque<Range> ranges = RangesOf(operations);
    if (ranges.empty()) return absl::OkStatus();
    std::vector<SectorReader::Part> parts;
    SNAPSYNC_ASSIGN_OR_RETURN(const std::vector<size_t> channels,
                              TakeChannels(ranges.size()));
    const absl::Status status = Find(channels, ranges, parts);
    GiveBack(channels, status);
    SNAPSYNC_RETURN_IF_ERROR(status);
    return sectors_->Read(parts);
  }

  absl::StatusOr<ExtentList> DataExtents() override {
    SNAPSYNC_ASSIGN_OR_RETURN(const std::vector<size_t> channels,
                              TakeChannels(1));
    ExtentCollector collector;
    const absl::Status status = FindExtents(channels.front(), collector);
    GiveBack(channels, status);
    SNAPSYNC_RETURN_IF_ERROR(status);
    return std::move(collector).Finish();
  }

 private:
  // A request that is under way.
  struct Request {
    size_t channel;
    size_t slot;
    Range range;
  };

  // Keeps each channel busy with as many requests as it has slots. Answers of a
  // channel come in the order of its requests, so the oldest request of all is
  // always answered next on its channel.
  absl::Status Find(const std::vector<size_t>& channels,
                    std::deque<Range>& ranges,
                    std::vector<SectorReader::Part>& parts) {
    std::deque<Request> requests;
    for (size_t slot = 0; slot < kSlotsPerChannel; ++slot) {
      for (const size_t channel : channels) {
        if (ranges.empty()) break;
        SNAPSYNC_RETURN_IF_ERROR(
            Ask(channel, slot, std::move(ranges.front()), requests));
        ranges.pop_front();
      }
    }
    while (!requests.empty()) {
      Request request = std::move(requests.front());
      requests.pop_front();
      SNAPSYNC_RETURN_IF_ERROR(TakeRuns(request, parts));
      // An answer may be for the beginning of a range only.
      if (request.range.length == 0) {
        if (ranges.empty()) continue;
        request.range = std::move(ranges.front());
        ranges.pop_front();
      }
      SNAPSYNC_RETURN_IF_ERROR(Ask(request.channel, request.slot,
                                   std::move(request.range), requests));
    }
    return absl::OkStatus();
  }

  absl::Status Ask(size_t channel, size_t slot, Range range,
                   std::deque<Request>& requests) {
    Packer packer;
    packer.Put(Message::kRead)
        .Put(range.offset)
        .Put(range.length)
        .Put<uint32_t>(static_cast<uint32_t>(slot));
    requests.push_back({channel, slot, std::move(range)});
    return process_->Send(process_->channel(channel), packer);
  }

  absl::Status TakeRuns(Request& request,
                        std::vector<SectorReader::Part>& parts) {
    SNAPSYNC_ASSIGN_OR_RETURN(
        const std::vector<std::byte> packet,
        process_->Receive(process_->channel(request.channel)));
    Unpacker unpacker(packet);
    const auto message = unpacker.Get<Message>();
    if (message == Message::kFailed) return UnpackFailure(unpacker);
    const auto count = unpacker.Get<uint32_t>();
    if (message != Message::kRuns || count == 0 || count > kMaxRunsInPacket) {
      return process_->Nonsense();
    }
    const std::span<const std::byte> slot =
        process_->Slot(request.channel, request.slot);
    const uint64_t begin = request.range.offset;
    for (uint32_t index = 0; index < count; ++index) {
      const auto source = unpacker.Get<Source>();
      const auto file = unpacker.Get<uint32_t>();
      auto host_offset = unpacker.Get<uint64_t>();
      auto left = unpacker.Get<uint64_t>();
      if (left == 0 || left > request.range.length || !IsWholeSectors(left) ||
          (source == Source::kFile && !IsInFile(file, host_offset, left))) {
        return process_->Nonsense();
      }
      while (left > 0) {
        const uint64_t in_slot = request.range.offset - begin;
        const std::span<std::byte> out = request.range.Take(left);
        if (source == Source::kFile) {
          parts.push_back({file, {host_offset, out}});
        } else if (source == Source::kSlot) {
          std::memcpy(out.data(), slot.data() + in_slot, out.size());
        } else if (source == Source::kZero) {
          std::memset(out.data(), 0, out.size());
        } else {
          return process_->Nonsense();
        }
        host_offset += out.size();
        left -= out.size();
      }
    }
    return unpacker.Complete() ? absl::OkStatus() : process_->Nonsense();
  }

  bool IsInFile(uint32_t file, uint64_t offset, uint64_t length) const {
    if (file >= sectors_->file_count() || !IsWholeSectors(offset)) return false;
    const uint64_t size = sectors_->SectorBytes(file);
    return offset <= size && length <= size - offset;
  }

  absl::Status FindExtents(size_t channel, ExtentCollector& collector) {
    uint64_t at = 0;
    while (at < size_) {
      SNAPSYNC_RETURN_IF_ERROR(process_->Send(
          process_->channel(channel), Packer().Put(Message::kExtents).Put(at)));
      SNAPSYNC_ASSIGN_OR_RETURN(const std::vector<std::byte> packet,
                                process_->Receive(process_->channel(channel)));
      Unpacker unpacker(packet);
      const auto message = unpacker.Get<Message>();
      if (message == Message::kFailed) return UnpackFailure(unpacker);
      const auto next = unpacker.Get<uint64_t>();
      const auto count = unpacker.Get<uint32_t>();
      if (message != Message::kExtents || next <= at || next > size_ ||
          !IsWholeSectors(next) || count > kMaxExtentsInPacket) {
        return process_->Nonsense();
      }
      for (uint32_t index = 0; index < count; ++index) {
        const auto offset = unpacker.Get<uint64_t>();
        const auto length = unpacker.Get<uint64_t>();
        if (offset < at || offset > next || length > next - offset ||
            !IsWholeSectors(offset) || !IsWholeSectors(length)) {
          return process_->Nonsense();
        }
        collector.Append({offset, length});
        at = offset + length;
      }
      if (!unpacker.Complete()) return process_->Nonsense();
      at = next;
    }
    return absl::OkStatus();
  }

  // One at least, `wanted` at most, when there are some.
  absl::StatusOr<std::vector<size_t>> TakeChannels(size_t wanted) {
    MutexLock lock(&mutex_);
    const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return !idle_.empty() || !broken_.ok();
    };
    mutex_.Await(ready);
    SNAPSYNC_RETURN_IF_ERROR(broken_);
    std::vector<size_t> taken;
    while (!idle_.empty() && taken.size() < wanted) {
      taken.push_back(idle_.back());
      idle_.pop_back();
    }
    return taken;
  }

  // After an error nobody knows which answers are still to come.
  void GiveBack(const std::vector<size_t>& channels,
                const absl::Status& status) {
    MutexLock lock(&mutex_);
    if (!status.ok()) {
      broken_ = status;
    } else {
      idle_.insert(idle_.end(), channels.begin(), channels.end());
    }
  }

  const std::string name_;
  const std::unique_ptr<const ImageFiles> files_;  // with the locks
  const std::unique_ptr<SectorReader> sectors_;
  const std::unique_ptr<ReaderProcess> process_;
  const uint64_t size_;
  const ImageFacts facts_;

  Mutex mutex_;
  std::vector<size_t> idle_ ABSL_GUARDED_BY(mutex_);  // channels
  absl::Status broken_ ABSL_GUARDED_BY(mutex_);
};

// Opens what the process asks for.
absl::Status Serve(Unpacker& question, ReaderProcess& process,
                   ImageFiles& files) {
  const bool image = question.Get<uint8_t>() != 0;
  const auto role = question.Get<FileSource::Role>();
  const auto by = question.Get<uint32_t>();
  const std::string name = question.GetText();
  if (!question.Complete() || image != files.files().empty() ||
      (role != FileSource::Role::kBacking && role != FileSource::Role::kData)) {
    return process.Nonsense();
  }
  SNAPSYNC_ASSIGN_OR_RETURN(
      const NumberedFile file,
      image ? files.OpenImage() : files.OpenNamed(role, by, name));
  Packer answer;
  answer.Put(Message::kFile)
      .Put(file.number)
      .Put<uint64_t>(file.file->size())
      .PutText(file.file->name());
  return process.Send(process.control(), answer, file.file->fd());
}

struct Opened {
  uint64_t size = 0;
  ImageFacts facts;
};

absl::StatusOr<Opened> UnpackOpened(Unpacker& unpacker,
                                    const ReaderProcess& process,
                                    size_t files) {
  Opened opened;
  opened.size = unpacker.Get<uint64_t>();
  opened.facts.version = unpacker.Get<uint32_t>();
  opened.facts.cluster_size = unpacker.Get<uint64_t>();
  opened.facts.untouched = unpacker.Get<uint8_t>() != 0;
  const std::string identity = unpacker.GetText();
  opened.facts.identity = DecodeIdentity(std::as_bytes(std::span(identity)));
  opened.facts.files = static_cast<uint32_t>(files);
  if (!unpacker.Complete() || files == 0 || !IsWholeSectors(opened.size) ||
      opened.size > INT64_MAX) {
    return process.Nonsense();
  }
  return opened;
}

// Until the process has opened and checked all of the image.
absl::StatusOr<Opened> Await(ReaderProcess& process, ImageFiles& files) {
  for (;;) {
    SNAPSYNC_ASSIGN_OR_RETURN(const std::vector<std::byte> packet,
                              process.Receive(process.control()));
    Unpacker unpacker(packet);
    switch (unpacker.Get<Message>()) {
      case Message::kOpen:
        SNAPSYNC_RETURN_IF_ERROR(Serve(unpacker, process, files));
        break;
      case Message::kAtWork:
        break;
      case Message::kOpened:
        return UnpackOpened(unpacker, process, files.files().size());
      case Message::kFailed:
        return UnpackFailure(unpacker);
      default:
        return process.Nonsense();
    }
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Image>> OpenConfinedImage(
    const std::string& path, const ImageOptions& options,
    const ReaderOptions& reader) {
  std::string program = reader.program;
  if (program.empty()) {
    SNAPSYNC_ASSIGN_OR_RETURN(program, FindReaderProgram());
  }
  const size_t channels =
      std::clamp<size_t>(std::thread::hardware_concurrency(), 1, kMaxChannels);
  auto files = std::make_unique<ImageFiles>(path, options.files);
  SNAPSYNC_ASSIGN_OR_RETURN(
      std::unique_ptr<ReaderProcess> process,
      ReaderProcess::Start(program, path, channels, reader.patience));
  Packer start;
  start.Put(Message::kStart)
      .Put(kReaderProtocolVersion)
      .Put<uint32_t>(static_cast<uint32_t>(channels))
      .Put<uint8_t>(options.chain.allow_corrupt ? 1 : 0)
      .PutText(options.chain.unrecorded_backing_format);
  SNAPSYNC_RETURN_IF_ERROR(process->Send(process->control(), start));
  SNAPSYNC_ASSIGN_OR_RETURN(Opened opened, Await(*process, *files));
  SNAPSYNC_ASSIGN_OR_RETURN(std::unique_ptr<SectorReader> sectors,
                            SectorReader::Make(files->files()));
  return std::make_unique<ConfinedImage>(
      path, std::move(files), std::move(sectors), std::move(process), channels,
      opened.size, std::move(opened.facts));
}

}  // namespace snapsync::qcow2
