// SPDX-License-Identifier: Apache-2.0
//
// What a session writes, and how what it wrote becomes the volume. One
// implementation for each kind of volume:
//
//   thin   a thin LV. Written to a stage (a thin snapshot NAME.stage) and
//          committed by one LVM commit that swaps the thin id
//          (`lvconvert --merge`), after the read-only snapshot NAME.gN of it.
//   file   a regular file. Written to a copy NAME.snapsync-stage (a reflink
//          where the file system can) and committed by a rename.
//   block  a plain block device. Written in place: there is no second place.
//          Between the first write and the commit it is TORN, and the caller's
//          record says so.
//
// The caller (agent/session.h) writes its record between the calls, so that
// after a crash at any moment the same calls, made again with the tokens in
// the record, lead out:
//
//   Inspect → CheckSeal → CreateStage → record → OpenStage → writes → record
//   COMMITTING → Commit → record AT → Prune
//
// Tokens and seals are short opaque texts (under 400 bytes, printable ASCII)
// that the target understands and the record keeps.
//
// Used by one thread at a time. Errors: kBusy names who holds the target,
// kTargetUnsuitable what is wrong with it, kBaseMismatch that it is not, or no
// longer, what the seal says, kIo the device and the command or offset.
#ifndef SNAPSYNC_AGENT_TARGETS_TARGET_H_
#define SNAPSYNC_AGENT_TARGETS_TARGET_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/error.h"
#include "common/base/id128.h"
#include "common/block/block_device.h"
#include "common/block/extent.h"
#include "common/transfer/session_protocol.h"

namespace snapsync {

struct TargetFacts {
  // Which device or file this is, whatever its path is today: the LV's dm uuid,
  // the disk's identity, or the file's path. Two targets never share one.
  std::string identity;
  std::string place;  // PlaceOf() it; empty: it is not there
  uint64_t size = 0;  // bytes; for a file that does not exist yet: 0
  // Nothing is on it that anybody could miss: no mapped block, no file, or no
  // signature known to libblkid and zeroes in a sample of the blocks.
  bool blank = false;
  // A sample is all that says so. Elsewhere there may be anything, so a first
  // plan has to cover all of it.
  bool blank_by_sample = false;
  // It takes any size (a file); else the source has to fit into `size`.
  bool grows = false;
  // Bytes: the block of the pool that it is in; 0: it is in none.
  uint64_t allocation_unit = 0;
};

class Target {
 public:
  virtual ~Target() = default;

  // Writes go to the visible volume itself: it is TORN until the commit.
  virtual bool in_place() const = 0;

  // The target as it is now. Writes nothing. kBusy when it is mounted, held or
  // open elsewhere. CheckSeal(), CheckRoom(), Generations() and CreateStage()
  // right after it may be about the volume group as this call saw it, since LVM
  // is slow to ask; so may OpenStage() right after CreateStage(), and Prune()
  // right after Commit().
  virtual absl::StatusOr<TargetFacts> Inspect() = 0;

  // Proves that the target is what the commit that returned `seal` left, and
  // that nobody wrote to it since. Writes nothing. kBaseMismatch otherwise.
  virtual absl::Status CheckSeal(const std::string& seal) = 0;

  // Opens the target as it is now for reading. kBusy as Inspect(),
  // kBaseMismatch when there is none. While the reader lives, a Commit() of a
  // thin volume is kBusy.
  virtual absl::StatusOr<std::unique_ptr<BlockReader>> OpenReader() = 0;

  // Of an image: what it is, or what the next stage makes of it, and the
  // replication that it belongs to; said before any other call.
  // kTargetUnsuitable for options that can't be.
  virtual absl::Status SetImage(const ExportOptions& options,
                                const std::string& /*replication*/) {
    if (!options.given()) return absl::OkStatus();
    return Error(Reason::kTargetUnsuitable,
                 "the target is no QCOW2 image: size, cluster size, "
                 "compression and chain can't be chosen");
  }

  // Whether a new stage can take `new_bytes` in whole units of allocation (0:
  // nobody knows how many) and leave the others on the pool their reserve.
  // kNoSpace with the numbers when it can't.
  virtual absl::Status CheckRoom(uint64_t /*new_bytes*/) {
    return absl::OkStatus();
  }

  // Makes a new stage for a source of `size` bytes, with the contents of the
  // target (when `from_base`; else contents do not matter, all of it will be
  // written or zeroed). Removes a stage that an earlier session left under the
  // same name. Returns the token under which it can be opened again.
  virtual absl::StatusOr<std::string> CreateStage(uint64_t size,
                                                  bool from_base) = 0;

  // Opens the stage for writing. kBaseMismatch when it is not there any more.
  virtual absl::StatusOr<std::unique_ptr<BlockWriter>> OpenStage(
      const std::string& token) = 0;

  // Makes the stage the volume, durably, as generation number `number`.
  // Requires: the stage is flushed and no writer is open. `base_seal`, if not
  // empty, is checked again first. Idempotent: called again after a crash at
  // any moment within, or after it returned, it ends in the same state. kBusy
  // (somebody opened the target meanwhile) leaves everything as it was.
  // Returns the seal. A thin volume's snapshot of it is tagged with
  // `generation` (common/generations).
  virtual absl::StatusOr<std::string> Commit(const std::string& token,
                                             uint64_t number,
                                             const Id128& generation,
                                             const std::string& base_seal) = 0;

  // The numbers of the generations of which there is a snapshot.
  virtual absl::StatusOr<std::vector<uint64_t>> Generations() {
    return std::vector<uint64_t>();
  }

  // The path of the snapshot that Commit() made for generation `number`; of an
  // image, with 0, that of its file (of a chain: the newest one).
  // kTargetUnsuitable when there is none (any more).
  virtual absl::StatusOr<std::string> GenerationPath(uint64_t /*number*/) {
    return NoGenerations();
  }

  // Opens generation `number`, the newest, for reading: its snapshot, or, of a
  // target that has none, the target itself, which `seal` must prove to be
  // still it. Errors as CheckSeal() and OpenReader().
  virtual absl::StatusOr<std::unique_ptr<BlockReader>> OpenGeneration(
      uint64_t /*number*/, const std::string& seal) {
    if (absl::Status s = CheckSeal(seal); !s.ok()) return s;
    return OpenReader();
  }

  // The first of `candidates` of which there is a snapshot here; nullopt: none.
  virtual absl::StatusOr<std::optional<Id128>> FindGeneration(
      const std::vector<Id128>& /*candidates*/) {
    return std::nullopt;
  }

  // What generation `number` changed since the snapshot of `generation`, as far
  // as the metadata can tell under all guards (kBaseMismatch otherwise).
  virtual absl::StatusOr<ExtentList> ChangedSince(const Id128& /*generation*/,
                                                  uint64_t /*number*/) {
    return NoGenerations();
  }

  // Removes the stage, if it is there; the target is what it was (in_place():
  // what it is). Idempotent. An empty token: a stage left under our name.
  virtual absl::Status RemoveStage(const std::string& token) = 0;

  // Removes generation snapshots older than the newest `keep`, counted back
  // from `number`. Never removes `number` itself.
  virtual absl::Status Prune(uint64_t number, uint64_t keep) = 0;

 private:
  static absl::Status NoGenerations() {
    return Error(Reason::kTargetUnsuitable,
                 "only thin volumes keep their generations");
  }
};

// The target at `path` (kind "thin", "block" or "file"). `state_directory` is
// where notes that must survive a crash are kept. Nothing is opened or checked
// yet.
std::unique_ptr<Target> MakeThinTarget(const std::string& path,
                                       const std::string& state_directory);
std::unique_ptr<Target> MakeBlockTarget(const std::string& path);
std::unique_ptr<Target> MakeFileTarget(const std::string& path);
// A QCOW2 image, or a chain of them (SetImage()).
std::unique_ptr<Target> MakeImageTarget(const std::string& path);

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_TARGETS_TARGET_H_
