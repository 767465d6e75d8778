// SPDX-License-Identifier: Apache-2.0
#include "common/thin/saved_mappings.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "common/base/atomic_file.h"
#include "common/base/crc32c.h"
#include "common/base/endian.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/thin/format.h"

namespace snapsync {
namespace {

constexpr uint32_t kMagic = 0x4d504e53;  // "SNPM"
constexpr uint32_t kVersion = 1;
constexpr size_t kIdBytes = 16;
constexpr size_t kHeaderBytes = 44;
constexpr size_t kGroupHeaderBytes = 28;
constexpr size_t kChecksumBytes = 4;
constexpr size_t kRunsMax = 4096;
// A run has at most 40 + 12 bits, two lengths of 97 bits, and a time.
constexpr size_t kPayloadMax = kRunsMax * 36;
// A device has at most 2^64 bytes, a block at least 2^16.
constexpr uint64_t kVirtualBlocksMax = uint64_t{1} << 48;
constexpr uint64_t kDataBlocksMax = uint64_t{1} << (64 - kTimeBits);
constexpr unsigned kGammaBitsMax = 48;

unsigned BitsFor(uint64_t value) {
  return static_cast<unsigned>(std::bit_width(value));
}

// Bits, from the lowest of a byte on.
class BitWriter {
 public:
  explicit BitWriter(std::vector<std::byte>& out) : out_(out) {}

  // Requires bits <= 56 and a value that fits.
  void Put(uint64_t value, unsigned bits) {
    held_ |= value << count_;
    count_ += bits;
    for (; count_ >= 8; count_ -= 8, held_ >>= 8) {
      out_.push_back(static_cast<std::byte>(held_ & 0xFF));
    }
  }
  // Elias' gamma code of value >= 1: 1 costs a bit, large values twice their
  // logarithm.
  void PutGamma(uint64_t value) {
    const unsigned below = BitsFor(value) - 1;
    Put(0, below);
    Put(1, 1);
    Put(value & ((uint64_t{1} << below) - 1), below);
  }
  void Finish() {
    if (count_ > 0) Put(0, 8 - count_);
  }

 private:
  std::vector<std::byte>& out_;
  uint64_t held_ = 0;
  unsigned count_ = 0;  // below 8 between calls
};

class BitReader {
 public:
  explicit BitReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  // Requires bits <= 56. Past the end: 0, and good() is false from then on.
  uint64_t Get(unsigned bits) {
    while (count_ < bits) {
      if (next_ == bytes_.size()) {
        good_ = false;
        return 0;
      }
      held_ |= static_cast<uint64_t>(bytes_[next_++]) << count_;
      count_ += 8;
    }
    const uint64_t value = held_ & ((uint64_t{1} << bits) - 1);
    held_ >>= bits;
    count_ -= bits;
    return value;
  }
  uint64_t GetGamma() {
    unsigned below = 0;
    while (good_ && Get(1) == 0) {
      if (++below > kGammaBitsMax) good_ = false;
    }
    if (!good_) return 0;
    return uint64_t{1} << below | Get(below);
  }
  bool good() const { return good_; }
  // Nothing is left but zeroes up to the end of a byte.
  bool AtEnd() const {
    return good_ && next_ == bytes_.size() && count_ < 8 && held_ == 0;
  }

 private:
  const std::span<const std::byte> bytes_;
  size_t next_ = 0;
  uint64_t held_ = 0;
  unsigned count_ = 0;
  bool good_ = true;
};

void AppendChecksum(std::vector<std::byte>& bytes) {
  const uint32_t checksum = Crc32c(bytes);
  bytes.resize(bytes.size() + kChecksumBytes);
  StoreLittle(&bytes[bytes.size() - kChecksumBytes], checksum);
}

}  // namespace

MappingsWriter::MappingsWriter(const SavedMappingsName& name, Sink sink)
    : sink_(std::move(sink)) {
  buffer_.resize(kHeaderBytes - kChecksumBytes);
  StoreLittle(&buffer_[0], kMagic);
  StoreLittle(&buffer_[4], kVersion);
  std::memcpy(&buffer_[8], name.id.bytes.data(), kIdBytes);
  std::memcpy(&buffer_[24], name.generation.bytes.data(), kIdBytes);
  AppendChecksum(buffer_);
}

absl::Status MappingsWriter::Add(uint64_t virtual_block,
                                 const Mapping& mapping) {
  if (virtual_block >= kVirtualBlocksMax ||
      mapping.data_block >= kDataBlocksMax ||
      (!runs_.empty() && virtual_block < runs_.back().end())) {
    return Error(Reason::kIo, "virtual block " + std::to_string(virtual_block) +
                                  " is out of order or range");
  }
  ++mappings_;
  if (!runs_.empty()) {
    MappingRun& last = runs_.back();
    if (virtual_block == last.end() && mapping.time == last.time &&
        mapping.data_block == last.data_block + last.length) {
      ++last.length;
      return absl::OkStatus();
    }
  }
  if (runs_.size() == kRunsMax) SNAPSYNC_RETURN_IF_ERROR(WriteGroup());
  runs_.push_back({virtual_block, 1, mapping.data_block, mapping.time});
  return absl::OkStatus();
}

absl::Status MappingsWriter::Finish() {
  if (!runs_.empty()) SNAPSYNC_RETURN_IF_ERROR(WriteGroup());
  std::vector<std::byte> end(kGroupHeaderBytes);
  StoreLittle(&end[8], mappings_);
  AppendChecksum(end);
  SNAPSYNC_RETURN_IF_ERROR(Write(buffer_));
  return Write(end);
}

absl::Status MappingsWriter::Write(std::span<const std::byte> bytes) {
  bytes_written_ += bytes.size();
  return sink_(bytes);
}

absl::Status MappingsWriter::WriteGroup() {
  std::vector<uint32_t> times;
  uint64_t lowest = UINT64_MAX;
  uint64_t highest = 0;
  for (const MappingRun& run : runs_) {
    times.push_back(run.time);
    lowest = std::min(lowest, run.data_block);
    highest = std::max(highest, run.data_block);
  }
  std::sort(times.begin(), times.end());
  times.erase(std::unique(times.begin(), times.end()), times.end());
  const unsigned block_bits = BitsFor(highest - lowest);
  const unsigned time_bits = BitsFor(times.size() - 1);

  std::vector<std::byte> group(kGroupHeaderBytes +
                               times.size() * sizeof(uint32_t));
  std::memcpy(&group[kGroupHeaderBytes], times.data(),
              times.size() * sizeof(uint32_t));
  BitWriter bits(group);
  uint64_t end = runs_.front().first;
  for (const MappingRun& run : runs_) {
    const auto time = std::lower_bound(times.begin(), times.end(), run.time);
    bits.PutGamma(run.first - end + 1);
    bits.Put(run.data_block - lowest, block_bits);
    bits.Put(static_cast<uint64_t>(time - times.begin()), time_bits);
    bits.PutGamma(run.length);
    end = run.end();
  }
  bits.Finish();
  StoreLittle(&group[0], static_cast<uint32_t>(runs_.size()));
  StoreLittle(&group[4],
              static_cast<uint32_t>(group.size() - kGroupHeaderBytes));
  StoreLittle(&group[8], runs_.front().first);
  StoreLittle(&group[16], lowest);
  StoreLittle(&group[24], static_cast<uint8_t>(block_bits));
  StoreLittle(&group[25], static_cast<uint8_t>(time_bits));
  StoreLittle(&group[26], static_cast<uint16_t>(times.size()));
  AppendChecksum(group);
  // The header waits for the first group, so that an empty file is no map.
  SNAPSYNC_RETURN_IF_ERROR(Write(buffer_));
  buffer_.clear();
  runs_.clear();
  return Write(group);
}

absl::StatusOr<MappingsReader> MappingsReader::OpenFile(
    const std::string& path, const SavedMappingsName& expected) {
  const auto fd = std::make_shared<UniqueFd>(
      ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd->valid()) {
    return PosixError(errno, path + ": the saved mappings can't be opened",
                      Reason::kBaseMismatch);
  }
  return Open(path, expected,
              [path, fd](std::span<std::byte> out) -> absl::StatusOr<size_t> {
                for (;;) {
                  const ssize_t got = ::read(fd->get(), out.data(), out.size());
                  if (got >= 0) return static_cast<size_t>(got);
                  if (errno == EINTR) continue;
                  return PosixError(errno,
                                    path + ": the saved mappings can't be read",
                                    Reason::kBaseMismatch);
                }
              });
}

absl::StatusOr<MappingsReader> MappingsReader::Open(
    const std::string& path, const SavedMappingsName& expected, Source source) {
  MappingsReader reader(path, std::move(source));
  SNAPSYNC_RETURN_IF_ERROR(reader.ReadHeader(expected));
  return reader;
}

absl::Status MappingsReader::Refuse(const std::string& what) const {
  return Error(Reason::kBaseMismatch, path_ + ": the saved mappings, at byte " +
                                          std::to_string(group_offset_) + ": " +
                                          what +
                                          "; the next sync writes them anew");
}

absl::Status MappingsReader::ReadExactly(std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    SNAPSYNC_ASSIGN_OR_RETURN(const size_t got, source_(bytes));
    if (got == 0 || got > bytes.size()) return Refuse("the file ends early");
    offset_ += got;
    bytes = bytes.subspan(got);
  }
  return absl::OkStatus();
}

absl::Status MappingsReader::ReadHeader(const SavedMappingsName& expected) {
  std::vector<std::byte> header(kHeaderBytes);
  SNAPSYNC_RETURN_IF_ERROR(ReadExactly(header));
  const size_t body = kHeaderBytes - kChecksumBytes;
  if (LoadLittle<uint32_t>(&header[0]) != kMagic ||
      LoadLittle<uint32_t>(&header[body]) !=
          Crc32c(std::span(header).first(body))) {
    return Refuse("magic or checksum is wrong");
  }
  const auto version = LoadLittle<uint32_t>(&header[4]);
  if (version != kVersion) {
    return Refuse("version " + std::to_string(version) + ", expected " +
                  std::to_string(kVersion));
  }
  SavedMappingsName found;
  std::memcpy(found.id.bytes.data(), &header[8], kIdBytes);
  std::memcpy(found.generation.bytes.data(), &header[24], kIdBytes);
  if (found == expected) return absl::OkStatus();
  return Refuse("found those of generation " + found.generation.ToString() +
                ", expected those of " + expected.generation.ToString());
}

absl::StatusOr<std::optional<MappingRun>> MappingsReader::Next() {
  if (next_ == runs_.size() && !finished_) {
    SNAPSYNC_RETURN_IF_ERROR(ReadGroup());
  }
  if (finished_) return std::optional<MappingRun>();
  return std::optional<MappingRun>(runs_[next_++]);
}

absl::Status MappingsReader::ReadGroup() {
  group_offset_ = offset_;
  std::vector<std::byte> group(kGroupHeaderBytes);
  SNAPSYNC_RETURN_IF_ERROR(ReadExactly(group));
  const auto payload = LoadLittle<uint32_t>(&group[4]);
  if (payload > kPayloadMax) {
    return Refuse("a group of " + std::to_string(payload) + " bytes");
  }
  group.resize(kGroupHeaderBytes + payload + kChecksumBytes);
  SNAPSYNC_RETURN_IF_ERROR(
      ReadExactly(std::span(group).subspan(kGroupHeaderBytes)));
  const auto body = std::span(group).first(group.size() - kChecksumBytes);
  if (LoadLittle<uint32_t>(&group[body.size()]) != Crc32c(body)) {
    return Refuse("the checksum is wrong");
  }
  return Decode(body);
}

absl::Status MappingsReader::Decode(std::span<const std::byte> group) {
  const auto count = LoadLittle<uint32_t>(&group[0]);
  const auto first = LoadLittle<uint64_t>(&group[8]);
  const auto lowest = LoadLittle<uint64_t>(&group[16]);
  const auto block_bits = LoadLittle<uint8_t>(&group[24]);
  const auto time_bits = LoadLittle<uint8_t>(&group[25]);
  const auto time_count = LoadLittle<uint16_t>(&group[26]);
  const auto payload = group.subspan(kGroupHeaderBytes);
  if (count == 0) {
    std::byte more{};
    SNAPSYNC_ASSIGN_OR_RETURN(const size_t got, source_({&more, 1}));
    if (got != 0 || first != mappings_ || !payload.empty()) {
      return Refuse("the end says " + std::to_string(first) +
                    " mappings, found were " + std::to_string(mappings_));
    }
    finished_ = true;
    return absl::OkStatus();
  }
  if (count > kRunsMax || time_count == 0 || time_count > count ||
      payload.size() < time_count * sizeof(uint32_t) || block_bits > 40 ||
      time_bits > 12 || first < end_ || first >= kVirtualBlocksMax ||
      lowest >= kDataBlocksMax) {
    return Refuse("a number in the group's header is out of range");
  }
  std::vector<uint32_t> times(time_count);
  std::memcpy(times.data(), payload.data(), time_count * sizeof(uint32_t));
  BitReader bits(payload.subspan(time_count * sizeof(uint32_t)));
  runs_.clear();
  next_ = 0;
  end_ = first;
  for (uint32_t index = 0; index < count; ++index) {
    MappingRun run;
    run.first = end_ + bits.GetGamma() - 1;
    run.data_block = lowest + bits.Get(block_bits);
    const uint64_t time = bits.Get(time_bits);
    run.length = bits.GetGamma();
    if (!bits.good() || time >= time_count || times[time] >= kTimeLimit ||
        run.first >= kVirtualBlocksMax || run.length > kVirtualBlocksMax ||
        run.end() > kVirtualBlocksMax || run.length > kDataBlocksMax ||
        run.data_block + run.length > kDataBlocksMax) {
      return Refuse("run " + std::to_string(index) + " is out of range");
    }
    run.time = times[time];
    end_ = run.end();
    mappings_ += run.length;
    runs_.push_back(run);
  }
  if (!bits.AtEnd()) return Refuse("more bytes than runs");
  return absl::OkStatus();
}

absl::StatusOr<MappingsFile> MappingsFile::Create(const std::string& path) {
  UniqueFd fd(::open(path.c_str(),
                     O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                     0600));
  if (!fd.valid()) return PosixError(errno, path + ": can't be created");
  return MappingsFile(path, std::move(fd));
}

absl::Status MappingsFile::Append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_.get(), bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return PosixError(errno, path_ + ": can't be written");
    }
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status MappingsFile::Finish() {
  if (::fsync(fd_.get()) != 0) {
    return PosixError(errno, path_ + ": flush failed");
  }
  return SyncFolder(path_.substr(0, path_.rfind('/')));
}

}  // namespace snapsync
