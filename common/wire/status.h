// SPDX-License-Identifier: Apache-2.0
//
// absl::Status over the wire and back, with its reason (common/base/error.h).
#ifndef SNAPSYNC_COMMON_WIRE_STATUS_H_
#define SNAPSYNC_COMMON_WIRE_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace snapsync::wire {

grpc::Status ToGrpc(const absl::Status& status);

// A status that no agent of ours made (connection lost, handshake refused)
// becomes kConnection or kPermission.
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace snapsync::wire

#endif  // SNAPSYNC_COMMON_WIRE_STATUS_H_
