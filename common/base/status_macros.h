// SPDX-License-Identifier: Apache-2.0
//
// Early return on errors, for functions that return absl::Status or StatusOr.
//
//   SNAPSYNC_RETURN_IF_ERROR(writer.Flush());
//   SNAPSYNC_ASSIGN_OR_RETURN(const Plan plan, MakePlan(delta));
#ifndef SNAPSYNC_COMMON_BASE_STATUS_MACROS_H_
#define SNAPSYNC_COMMON_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define SNAPSYNC_RETURN_IF_ERROR(expression)                                  \
  do {                                                                        \
    if (absl::Status snapsync_status = (expression); !snapsync_status.ok()) { \
      return snapsync_status;                                                 \
    }                                                                         \
  } while (false)

#define SNAPSYNC_CONCAT_INNER(a, b) a##b
#define SNAPSYNC_CONCAT(a, b) SNAPSYNC_CONCAT_INNER(a, b)

#define SNAPSYNC_ASSIGN_OR_RETURN(declaration, expression)                 \
  SNAPSYNC_ASSIGN_OR_RETURN_INNER(SNAPSYNC_CONCAT(snapsync_or_, __LINE__), \
                                  declaration, expression)

#define SNAPSYNC_ASSIGN_OR_RETURN_INNER(result, declaration, expression) \
  auto result = (expression);                                            \
  if (!result.ok()) return std::move(result).status();                   \
  declaration = *std::move(result)

#endif  // SNAPSYNC_COMMON_BASE_STATUS_MACROS_H_
