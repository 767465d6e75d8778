// SPDX-License-Identifier: Apache-2.0
//
// A plan that can't be made again, on disk: one that came from comparing hashes
// with a target that is being written to by now. docs/formats.md has the form.
//
// It names the generation that its commit makes, and so is never taken for the
// plan of another sync.
#ifndef SNAPSYNC_SENDER_SAVED_PLAN_H_
#define SNAPSYNC_SENDER_SAVED_PLAN_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/base/id128.h"
#include "common/transfer/plan.h"

namespace snapsync {

struct SavedPlan {
  Id128 generation;  // that the commit will make
  Id128 base;
  Plan plan;
};

std::string EncodePlan(const SavedPlan& saved);
// kIo, naming `path` and the field, when the contents are damaged or of another
// version.
absl::StatusOr<SavedPlan> DecodePlan(const std::string& path,
                                     std::string_view contents);

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_SAVED_PLAN_H_
