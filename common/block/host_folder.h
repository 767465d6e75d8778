// SPDX-License-Identifier: Apache-2.0
//
// The ports through which a file that grows, and the names in a folder, are
// changed: images, their journals, and the renames that commit them. One
// implementation for real folders, one for the tests that cut the power.
//
// What is durable: the bytes and the size of a file after its Flush(), names
// after the folder's Flush(). After a failed Flush() nothing may be concluded,
// and trying again proves nothing: the caller gives the file up.
//
// Errors name the file and the offset; kNoSpace when there is no space.
#ifndef SNAPSYNC_COMMON_BLOCK_HOST_FOLDER_H_
#define SNAPSYNC_COMMON_BLOCK_HOST_FOLDER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/block/block_device.h"
#include "common/block/extent.h"

namespace snapsync {

// A regular file. Read() and Write() are thread-safe, also beside Flush(); the
// others are used by one thread at a time.
//
// There are two ways to the bytes. Read() and Write() go past the page cache
// where the file system can: offsets and lengths are multiples of 4096, memory
// is an AlignedBuffer's. ReadCached() and WriteCached() take any. One place of
// a file is always reached by the same way: the two are not ordered.
class GrowingFile {
 public:
  static constexpr uint64_t kAlignment = 4096;

  virtual ~GrowingFile() = default;

  virtual const std::string& name() const = 0;  // for errors
  // For locks (common/qcow2/locks.h) and to find who has it open.
  virtual int descriptor() const = 0;
  virtual absl::StatusOr<uint64_t> Size() = 0;

  // kIo for what lies beyond the end.
  virtual absl::Status Read(std::span<const ReadOperation> operations) = 0;
  virtual absl::Status ReadCached(uint64_t offset,
                                  std::span<std::byte> data) = 0;
  // Both make the file larger as needed.
  virtual absl::Status Write(std::span<const WriteOperation> operations) = 0;
  virtual absl::Status WriteCached(uint64_t offset,
                                   std::span<const std::byte> data) = 0;

  // What is added reads as zeroes.
  virtual absl::Status Resize(uint64_t size) = 0;
  // Gives the space back where the file system can; the size stays. What was
  // there is undefined afterwards.
  virtual absl::Status Punch(Extent extent) = 0;
  virtual absl::Status Flush() = 0;

  // Owner, group and mode become those of `other`, durably.
  virtual absl::Status TakeOwnerOf(const GrowingFile& other) = 0;
};

// Used by one thread at a time.
class HostFolder {
 public:
  enum class Access { kRead, kWrite };
  enum class IfThere { kReplace, kRefuse };

  virtual ~HostFolder() = default;

  // With a '/' at the end unless it is empty: what is put before a name.
  virtual const std::string& path() const = 0;
  virtual absl::StatusOr<std::vector<std::string>> Names() = 0;

  // nullptr when there is none. kTargetUnsuitable for a symbolic link, for a
  // file with several names, and for what is no regular file: none of them is
  // opened.
  virtual absl::StatusOr<std::unique_ptr<GrowingFile>> Open(
      const std::string& name, Access access) = 0;
  // A new file, for writing, mode 0600. kTargetUnsuitable when the name is
  // taken.
  virtual absl::StatusOr<std::unique_ptr<GrowingFile>> Create(
      const std::string& name) = 0;
  virtual absl::Status Rename(const std::string& from, const std::string& to,
                              IfThere if_there) = 0;
  // OK when there is none.
  virtual absl::Status Remove(const std::string& name) = 0;
  // Makes the names durable.
  virtual absl::Status Flush() = 0;
};

// kTargetUnsuitable when it can't be opened. `path` empty: the current folder.
absl::StatusOr<std::unique_ptr<HostFolder>> OpenHostFolder(
    const std::string& path);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BLOCK_HOST_FOLDER_H_
