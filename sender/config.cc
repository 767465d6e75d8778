// SPDX-License-Identifier: Apache-2.0
#include "sender/config.h"

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/toml_table.h"

namespace snapsync {

absl::StatusOr<SenderConfig> ReadSenderConfig(const std::string& path) {
  SNAPSYNC_ASSIGN_OR_RETURN(TomlTable root, TomlTable::ParseFile(path));
  SenderConfig config;
  TomlTable defaults = root.Table("defaults");
  config.state_directory =
      defaults.String("state-directory", config.state_directory);
  const int64_t port = defaults.Integer("port", config.port);
  if (port < 1 || port > 65535) defaults.Refuse("port", "must be 1 to 65535");
  config.port = static_cast<int>(port);
  const int64_t timeout = defaults.Integer("timeout", 120);
  if (timeout < 0) {
    defaults.Refuse("timeout", "must be 0 (never) or more seconds");
  }
  config.timeout_seconds = static_cast<uint64_t>(timeout);
  if (defaults.Has("retry-for")) {
    const int64_t retry_for = defaults.Integer("retry-for", 0);
    if (retry_for < 0) {
      defaults.Refuse("retry-for", "must be 0 (never give up) or more seconds");
    }
    config.retry_for_seconds = static_cast<uint64_t>(retry_for);
    config.connect_for_seconds = config.retry_for_seconds;
  }
  config.bytes_per_second = defaults.Size("speed-limit", 0);
  config.save_mappings = defaults.Boolean("save-mappings", false);
  TomlTable tls = root.Table("tls");
  config.tls_ca = tls.String("ca", "");
  config.tls_certificate = tls.String("cert", "");
  config.tls_key = tls.String("key", "");
  TomlTable logging = root.Table("logging");
  config.log_directory = logging.String("directory", "");
  const auto level = ParseSeverity(logging.String("file_level", "info"));
  if (!level) {
    logging.Refuse("file_level", "must be debug, info, warning or error");
  }
  config.log_level = level.value_or(Severity::kInfo);
  SNAPSYNC_RETURN_IF_ERROR(root.Finish());
  return config;
}

}  // namespace snapsync
