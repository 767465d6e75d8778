// SPDX-License-Identifier: Apache-2.0
#include "common/wire/status.h"

#include <string>

#include "common/base/error.h"
#include "snapsync/v1/errors.pb.h"

namespace snapsync::wire {
namespace {

constexpr char kType[] = "type.googleapis.com/snapsync.v1.ErrorDetail";
// Trailers of 8 KiB and more lose the whole status.
constexpr size_t kMaxText = 1536;

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const std::string text(MessageOf(status).substr(0, kMaxText));
  v1::ErrorDetail detail;
  detail.set_reason(static_cast<uint32_t>(ReasonOf(status)));
  v1::StatusEnvelope envelope;
  envelope.set_code(static_cast<int32_t>(status.code()));
  envelope.set_message(text);
  v1::StatusEnvelope::Any* any = envelope.add_details();
  any->set_type_url(kType);
  any->set_value(detail.SerializeAsString());
  return {static_cast<grpc::StatusCode>(status.code()), text,
          envelope.SerializeAsString()};
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  v1::StatusEnvelope envelope;
  v1::ErrorDetail detail;
  if (envelope.ParseFromString(status.error_details()) &&
      envelope.details_size() == 1 && envelope.details(0).type_url() == kType &&
      detail.ParseFromString(envelope.details(0).value()) &&
      detail.reason() >= 1 && detail.reason() <= kLastReason) {
    return Error(static_cast<Reason>(detail.reason()), status.error_message());
  }
  switch (status.error_code()) {
    case grpc::StatusCode::UNAUTHENTICATED:
    case grpc::StatusCode::PERMISSION_DENIED:
      return Error(Reason::kPermission, status.error_message());
    case grpc::StatusCode::UNIMPLEMENTED:
      return Error(Reason::kOther,
                   "the agent does not know this call; is it "
                   "older than this sender?");
    default:
      return Error(Reason::kConnection,
                   "connection to the agent: " + status.error_message());
  }
}

}  // namespace snapsync::wire
