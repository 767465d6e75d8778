// SPDX-License-Identifier: Apache-2.0
//
// The sender's configuration file (TOML); every key is also a flag, and flags
// win. docs/operating.md has every key. Errors are kConfiguration.
#ifndef SNAPSYNC_SENDER_CONFIG_H_
#define SNAPSYNC_SENDER_CONFIG_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/log.h"
#include "common/wire/limits.h"

namespace snapsync {

struct SenderConfig {
  std::string state_directory = "/var/lib/snapsync";
  int port = kDefaultPort;
  uint64_t timeout_seconds = 120;  // a call without progress; 0: never
  // A sync that is tried again and again without progress; 0: never.
  uint64_t retry_for_seconds = 600;
  // The same as long as no call has ever succeeded, when the trouble is rather
  // a wrong address than a lost connection; what is asked for counts for both.
  uint64_t connect_for_seconds = 10;
  uint64_t bytes_per_second = 0;  // 0: no limit
  bool save_mappings = false;
  std::string tls_ca;
  std::string tls_certificate;
  std::string tls_key;
  std::string log_directory;
  Severity log_level = Severity::kInfo;
};

absl::StatusOr<SenderConfig> ReadSenderConfig(const std::string& path);

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_CONFIG_H_
