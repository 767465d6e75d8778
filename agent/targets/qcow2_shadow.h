// SPDX-License-Identifier: Apache-2.0
//
// The next generation of an export on its way into the same file, and
// NAME.update.journal beside it. The file is the generation before until
// Finish().
//
// Used by one thread at a time. kBaseMismatch when the file is not what an
// export left, or another generation.
#ifndef SNAPSYNC_AGENT_TARGETS_QCOW2_SHADOW_H_
#define SNAPSYNC_AGENT_TARGETS_QCOW2_SHADOW_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/targets/qcow2_stage.h"
#include "agent/targets/qcow2_target.h"
#include "common/base/id128.h"
#include "common/block/host_folder.h"
#include "common/qcow2/committed_image.h"

namespace snapsync {

class Qcow2Shadow {
 public:
  // `options` and `folder` must outlive it.
  Qcow2Shadow(const Qcow2Options* options, HostFolder* folder,
              const std::string& name)
      : options_(*options),
        folder_(*folder),
        name_(name),
        journal_name_(name + ".update.journal") {}

  // Requires: there is none. For a source of `size` bytes.
  absl::Status Create(const Id128& stage, uint64_t size);

  absl::StatusOr<std::optional<Id128>> Find();

  // Opens it for writing: QEMU's programs may read the file meanwhile, and
  // nothing else.
  absl::StatusOr<std::shared_ptr<Qcow2Stage>> Open(const Id128& stage);

  // Makes the file the next generation. kBusy when anybody has it open.
  absl::Status Finish(const Id128& stage, const qcow2::Identity& identity);

  // Ends what a crash after the switch left to do.
  absl::Status CleanUp();

  // Gives back what was written, and removes the journal.
  absl::Status Remove();

 private:
  enum class Others { kMayRead, kMayNot };

  absl::StatusOr<std::shared_ptr<Qcow2Stage>> OpenWith(
      const Id128& stage, Others others, qcow2::CommittedImage& image);
  absl::Status RemoveJournal();

  const Qcow2Options& options_;
  HostFolder& folder_;
  const std::string name_;
  const std::string journal_name_;
};

// The compression that an update by `options` uses on a file whose header has
// `compression_type`; kBaseMismatch when the two don't go together.
absl::Status CheckCompression(const Qcow2Options& options,
                              uint8_t compression_type,
                              const std::string& path);

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_TARGETS_QCOW2_SHADOW_H_
