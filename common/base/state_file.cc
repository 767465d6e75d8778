// SPDX-License-Identifier: Apache-2.0
#include "common/base/state_file.h"

#include <span>

#include "absl/strings/str_format.h"
#include "common/base/crc32c.h"
#include "common/base/error.h"

namespace snapsync {
namespace {

std::string HeaderOf(std::string_view kind, int version,
                     std::string_view body) {
  return absl::StrFormat("snapsync %s %d %08x\n", std::string(kind), version,
                         Crc32c(std::as_bytes(std::span(body))));
}

}  // namespace

std::string EncodeState(std::string_view kind, int version,
                        std::string_view body) {
  return HeaderOf(kind, version, body) + std::string(body);
}

absl::StatusOr<std::string> DecodeState(std::string_view kind, int version,
                                        const std::string& path,
                                        std::string_view contents) {
  const size_t line = contents.find('\n');
  if (line == std::string_view::npos || line > 100) {
    return Error(Reason::kIo, path + ": not a state file of SnapSync");
  }
  const std::string_view header = contents.substr(0, line + 1);
  const std::string_view body = contents.substr(line + 1);
  const std::string expected = HeaderOf(kind, version, body);
  if (header == expected) return std::string(body);
  const std::string name_and_version =
      absl::StrFormat("snapsync %s %d ", std::string(kind), version);
  if (header.substr(0, name_and_version.size()) == name_and_version) {
    return Error(Reason::kIo,
                 path + ": damaged (the checksum does not match its contents)");
  }
  return Error(Reason::kIo, path + ": found \"" +
                                std::string(header.substr(0, line)) +
                                "\", expected " + std::string(kind) +
                                " version " + std::to_string(version) +
                                "; was it written by another version?");
}

}  // namespace snapsync
