// SPDX-License-Identifier: Apache-2.0
//
// A new file on its way: NAME.part, which every reader refuses until it is
// whole, and NAME.part.journal beside it. Both have the stage's name in them.
//
// Used by one thread at a time.
#ifndef SNAPSYNC_AGENT_TARGETS_QCOW2_PART_H_
#define SNAPSYNC_AGENT_TARGETS_QCOW2_PART_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/targets/qcow2_stage.h"
#include "agent/targets/qcow2_target.h"
#include "common/base/id128.h"
#include "common/block/host_folder.h"
#include "common/qcow2/export_header.h"

namespace snapsync {

class Qcow2Part {
 public:
  // `options` and `folder` must outlive it.
  Qcow2Part(const Qcow2Options* options, HostFolder* folder,
            const std::string& name)
      : options_(*options),
        folder_(*folder),
        part_name_(name + ".part"),
        journal_name_(part_name_ + ".journal") {}

  const std::string& name() const { return part_name_; }

  // Requires: there is none. `guard` has a new stage's name as generation.
  absl::Status Create(const qcow2::ExportHeader& guard);

  // Which stage is there, if any is.
  absl::StatusOr<std::optional<Id128>> Find();

  // Opens it for writing. kBaseMismatch when it is not `stage`.
  absl::StatusOr<std::shared_ptr<Qcow2Stage>> Open(
      const Id128& stage, std::unique_ptr<BlockReader> backing);

  // Makes the file whole, if it is not yet, and durable: what is left is to
  // give it its name. It takes owner and mode of `old`, if there is one.
  absl::Status Finish(const Id128& stage, const qcow2::Identity& identity,
                      std::unique_ptr<BlockReader> backing, GrowingFile* old);

  // Removes both files, durably. kTargetUnsuitable when one of them is not
  // ours.
  absl::Status Remove();
  // Of the journal, once the file has its name.
  absl::Status RemoveJournal();

 private:
  absl::StatusOr<std::unique_ptr<GrowingFile>> OpenFile(
      const Id128& stage, qcow2::ExportHeader& header);

  const Qcow2Options& options_;
  HostFolder& folder_;
  const std::string part_name_;
  const std::string journal_name_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_TARGETS_QCOW2_PART_H_
