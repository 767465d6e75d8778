// SPDX-License-Identifier: Apache-2.0
//
// The mappings of a thin snapshot in a compact file: what a later delta
// compares with when the snapshot itself is gone. docs/formats.md has the form.
//
// Both ends stream: a group of 4096 runs is in memory at a time. What is read
// is taken for hostile: nothing in it is used before its checksum, order and
// range were checked, and every complaint is kBaseMismatch ("this method can't
// be"), with the file and the place in it.
//
// Used by one thread at a time.
#ifndef SNAPSYNC_COMMON_THIN_SAVED_MAPPINGS_H_
#define SNAPSYNC_COMMON_THIN_SAVED_MAPPINGS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/id128.h"
#include "common/base/unique_fd.h"
#include "common/thin/mappings.h"

namespace snapsync {

// `length` virtual blocks from `first` on, mapped to as many data blocks from
// `data_block` on, all at one time.
struct MappingRun {
  uint64_t first = 0;
  uint64_t length = 0;
  uint64_t data_block = 0;
  uint32_t time = 0;

  uint64_t end() const { return first + length; }
  friend bool operator==(const MappingRun&, const MappingRun&) = default;
};

// Whose mappings these are.
struct SavedMappingsName {
  Id128 id;          // of the file: random, and in the state that names it
  Id128 generation;  // of the replica that has these contents

  friend bool operator==(const SavedMappingsName&,
                         const SavedMappingsName&) = default;
};

class MappingsWriter {
 public:
  using Sink = std::function<absl::Status(std::span<const std::byte>)>;

  // The header goes to `sink` with the first group.
  MappingsWriter(const SavedMappingsName& name, Sink sink);

  // Requires: ascending virtual blocks. kIo for numbers that no pool has.
  absl::Status Add(uint64_t virtual_block, const Mapping& mapping);
  // Call once, after the last Add().
  absl::Status Finish();

  uint64_t bytes_written() const { return bytes_written_; }

 private:
  absl::Status Write(std::span<const std::byte> bytes);
  absl::Status WriteGroup();

  const Sink sink_;
  std::vector<std::byte> buffer_;
  std::vector<MappingRun> runs_;
  uint64_t mappings_ = 0;
  uint64_t bytes_written_ = 0;
};

class MappingsReader {
 public:
  // Fills as much of the span as there is; 0: the end.
  using Source = std::function<absl::StatusOr<size_t>(std::span<std::byte>)>;

  // Of the file at `path`, which must be named `expected`.
  static absl::StatusOr<MappingsReader> OpenFile(
      const std::string& path, const SavedMappingsName& expected);
  // `path` is for messages.
  static absl::StatusOr<MappingsReader> Open(const std::string& path,
                                             const SavedMappingsName& expected,
                                             Source source);

  // Ascending, without overlap; nullopt after the last one, when all that was
  // written has come back.
  absl::StatusOr<std::optional<MappingRun>> Next();

  // Of the groups that Next() has read so far; at its end: of the file.
  uint64_t mappings() const { return mappings_; }

 private:
  MappingsReader(std::string path, Source source)
      : path_(std::move(path)), source_(std::move(source)) {}
  absl::Status ReadHeader(const SavedMappingsName& expected);
  absl::Status ReadGroup();
  absl::Status Decode(std::span<const std::byte> group);
  absl::Status ReadExactly(std::span<std::byte> bytes);
  absl::Status Refuse(const std::string& what) const;

  std::string path_;
  Source source_;
  uint64_t offset_ = 0;        // in the file
  uint64_t group_offset_ = 0;  // of the group that is read
  bool finished_ = false;
  std::vector<MappingRun> runs_;
  size_t next_ = 0;
  uint64_t end_ = 0;  // virtual block after the last run
  uint64_t mappings_ = 0;
};

// A file that is written from begin to end, and durable after Finish().
class MappingsFile {
 public:
  static absl::StatusOr<MappingsFile> Create(const std::string& path);
  absl::Status Append(std::span<const std::byte> bytes);
  absl::Status Finish();

 private:
  MappingsFile(std::string path, UniqueFd fd)
      : path_(std::move(path)), fd_(std::move(fd)) {}

  std::string path_;
  UniqueFd fd_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_THIN_SAVED_MAPPINGS_H_
