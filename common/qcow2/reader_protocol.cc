// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/reader_protocol.h"

#include <string>

#include "common/base/error.h"
#include "common/qcow2/header.h"

namespace snapsync::qcow2 {
namespace {

constexpr size_t kMaxTextBytes = 2000;

}  // namespace

Packer PackFailure(const absl::Status& status) {
  Packer packer;
  packer.Put(Message::kFailed)
      .Put<uint32_t>(static_cast<uint32_t>(ReasonOf(status)))
      .PutText(MessageOf(status).substr(0, kMaxTextBytes));
  return packer;
}

absl::Status UnpackFailure(Unpacker& unpacker) {
  const auto reason = unpacker.Get<uint32_t>();
  const std::string text = Printable(unpacker.GetText(), kMaxTextBytes);
  const bool known = reason >= static_cast<uint32_t>(Reason::kOther) &&
                     reason <= static_cast<uint32_t>(Reason::kIo);
  return Error(known ? static_cast<Reason>(reason) : Reason::kIo, text);
}

}  // namespace snapsync::qcow2
