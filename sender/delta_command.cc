// SPDX-License-Identifier: Apache-2.0
#include "sender/delta_command.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "common/thin/delta.h"
#include "common/thin/guards.h"
#include "common/thin/metadata_snapshot.h"

namespace snapsync {
namespace {

struct Answer {
  Delta delta;
  std::vector<std::string> warnings;
};

void Warn(const absl::Status& finding, Answer* answer) {
  if (finding.ok()) return;
  answer->warnings.push_back(
      absl::StrCat(std::string(MessageOf(finding)),
                   " (this is the difference of the two mapping trees, but the "
                   "contents may differ elsewhere too: a sync would refuse)"));
}

absl::StatusOr<Answer> Compare(const DeltaOptions& options, PoolView& view) {
  Answer answer;
  SNAPSYNC_RETURN_IF_ERROR(CheckPool(view.superblock(), view.status()));
  answer.warnings = PoolWarnings(view.superblock());
  std::optional<ThinDevice> base;
  if (options.base_id) {
    SNAPSYNC_ASSIGN_OR_RETURN(base, view.RequireDevice(*options.base_id));
  }
  SNAPSYNC_ASSIGN_OR_RETURN(const ThinDevice snapshot,
                            view.RequireDevice(options.id));
  DeltaSizes sizes;
  sizes.snapshot = options.size;
  if (base) sizes.base = options.base_size;
  SNAPSYNC_ASSIGN_OR_RETURN(TreeDelta compared,
                            CompareDevices(view, base, snapshot, sizes));
  if (base) {
    if (BaseNeedsWholeWalk(*base) && !compared.base.whole) {
      SNAPSYNC_ASSIGN_OR_RETURN(compared.base, WalkDevice(view, *base));
    }
    Warn(CheckBaseFrozen(*base, compared.base), &answer);
    Warn(CheckSnapshotFrozen(snapshot, compared.snapshot), &answer);
  }
  answer.delta = std::move(compared.delta);
  answer.delta.metadata_blocks_read = view.metadata_blocks_read();
  return answer;
}

void PrintJson(std::string_view key, const ExtentList& list,
               std::ostream& out) {
  out << ",\"" << key << "\":[";
  const char* separator = "";
  for (const Extent& extent : list.extents()) {
    out << separator << '[' << extent.offset << ',' << extent.length << ']';
    separator = ",";
  }
  out << ']';
}

void PrintText(std::string_view word, const ExtentList& list,
               std::ostream& out) {
  for (const Extent& extent : list.extents()) {
    out << word << ' ' << extent.offset << ' ' << extent.length << '\n';
  }
}

}  // namespace

absl::Status RunDelta(const DeltaOptions& options, std::ostream& out,
                      std::ostream& warnings) {
  Answer answer;
  const MetadataSource source{options.meta, options.metadata_snapshot,
                              options.state_directory};
  SNAPSYNC_RETURN_IF_ERROR(
      WithPoolView(source, [&](PoolView& view) -> absl::Status {
        SNAPSYNC_ASSIGN_OR_RETURN(answer, Compare(options, view));
        return absl::OkStatus();
      }));
  for (const std::string& warning : answer.warnings) {
    warnings << "snapsync-send: warning: " << warning << '\n';
  }
  const Delta& delta = answer.delta;
  if (options.json) {
    out << "{\"block_size\":" << delta.block_size_bytes;
    PrintJson("changed", delta.changed, out);
    PrintJson("gone", delta.gone, out);
    out << ",\"changed_bytes\":" << delta.changed.bytes()
        << ",\"gone_bytes\":" << delta.gone.bytes()
        << ",\"metadata_blocks_read\":" << delta.metadata_blocks_read << "}\n";
  } else {
    out << "# offset and length in bytes; block size " << delta.block_size_bytes
        << '\n';
    PrintText("changed", delta.changed, out);
    PrintText("gone", delta.gone, out);
    out << "# changed " << delta.changed.bytes() << " bytes ("
        << FormatBytes(delta.changed.bytes()) << ") in "
        << delta.changed.extents().size() << " extents, gone "
        << delta.gone.bytes() << " bytes (" << FormatBytes(delta.gone.bytes())
        << ") in " << delta.gone.extents().size() << " extents; "
        << delta.metadata_blocks_read << " metadata blocks read\n";
  }
  out.flush();
  if (!out.good()) {
    return Error(Reason::kIo, "can't write the result to its output");
  }
  return absl::OkStatus();
}

}  // namespace snapsync
