// SPDX-License-Identifier: Apache-2.0
//
// What the two kinds of stages of an export share: an image that is being
// written, with what has to live as long, and the wishes of the operator in the
// format's terms.
#ifndef SNAPSYNC_AGENT_TARGETS_QCOW2_STAGE_H_
#define SNAPSYNC_AGENT_TARGETS_QCOW2_STAGE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/targets/qcow2_target.h"
#include "common/base/id128.h"
#include "common/block/block_device.h"
#include "common/block/host_folder.h"
#include "common/qcow2/export_header.h"
#include "common/qcow2/image_writer.h"
#include "common/qcow2/locks.h"
#include "common/qcow2/stage_journal.h"

namespace snapsync {

// An open stage. Thread-safe, but for Retire().
class Qcow2Stage {
 public:
  // What was there before, in an overlay; a lock; both may be missing.
  std::unique_ptr<BlockReader> backing;
  std::optional<qcow2::ImageLock> lock;
  std::unique_ptr<qcow2::ImageWriter> writer;  // last: it uses the others

  // Ends the writer's right to write, also for those who still hold it.
  void Retire();
};

// A writer that shares the stage with the target that opened it.
std::unique_ptr<BlockWriter> ShareStage(std::shared_ptr<Qcow2Stage> stage);

// The guard header of a new file for a source of `size` bytes; its generation
// is `stage`. kTargetUnsuitable when it can't have such a size, kUsage for
// options that make no sense.
absl::StatusOr<qcow2::ExportHeader> MakeGuardHeader(const Qcow2Options& options,
                                                    uint64_t size,
                                                    const Id128& stage);

// The size of the disk for a source of `size` bytes. kTargetUnsuitable when
// there is no such disk.
absl::StatusOr<uint64_t> VirtualSizeOf(const Qcow2Options& options,
                                       const qcow2::Geometry& geometry,
                                       uint64_t size);

// How clusters are written, by a journal's head and the file's header.
qcow2::StoreOptions StoreOptionsOf(const Qcow2Options& options,
                                   const qcow2::StageHead& head,
                                   uint8_t compression_type,
                                   BlockReader* backing);

// What the file says of itself once it is committed.
qcow2::Identity IdentityOf(const Qcow2Options& options, uint64_t number,
                           const Id128& generation, const Id128& previous);

// The journal `name`, open for writing. kBaseMismatch when it is not there or
// of another stage than `stage`; kBusy when another process writes it.
absl::StatusOr<std::unique_ptr<qcow2::StageJournal>> OpenJournal(
    HostFolder& folder, const std::string& name, const Id128& stage);

// The head of the journal `name`; nullopt when there is none, or one that a
// crash left without a head. kTargetUnsuitable when the file is somebody's.
absl::StatusOr<std::optional<qcow2::StageHead>> LookAtJournal(
    HostFolder& folder, const std::string& name);

// kBusy, with who, when another process has it open.
absl::Status CheckNotOpen(GrowingFile& file);

// The error for a stage that is not there (any more).
absl::Status NoStage(const std::string& path);

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_TARGETS_QCOW2_STAGE_H_
