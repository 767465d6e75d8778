// SPDX-License-Identifier: Apache-2.0
#include "agent/config.h"

#include <algorithm>
#include <set>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/toml_table.h"

namespace snapsync {
namespace {

constexpr size_t kLongestName = 64;
constexpr size_t kLongestFileName = 128;

bool IsFileName(const std::string& text) {
  if (text.empty() || text.size() > kLongestFileName || text[0] == '.' ||
      text[0] == '-') {
    return false;
  }
  return std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-';
  });
}

// Names become file names and parts of LV names.
bool IsName(const std::string& text) {
  return text.size() <= kLongestName && IsFileName(text);
}

ClientConfig ReadClient(TomlTable& table) {
  ClientConfig client;
  client.name = table.String("name", "");
  client.allow = table.Strings("allow");
  client.volumes = table.Strings("volumes");
  if (!IsName(client.name)) {
    table.Refuse("name", "must be the node's name in its certificate");
  }
  for (const std::string& right : client.allow) {
    if (right != "receive" && right != "send" && right != "revert" &&
        right != "promote") {
      table.Refuse("allow", "unknown right \"" + right +
                                "\"; known: receive, send, revert, promote");
    }
  }
  return client;
}

VolumeConfig ReadVolume(TomlTable& table) {
  VolumeConfig volume;
  volume.name = table.String("name", "");
  volume.path = table.String("path", "");
  volume.kind = table.String("kind", "thin");
  TomlTable keep = table.Table("keep");
  const int64_t last = keep.Integer("last", 3);
  if (last < 1 || last > 1000) {
    keep.Refuse("last", "must be between 1 and 1000");
  }
  volume.keep = static_cast<uint64_t>(last);
  if (!IsName(volume.name)) {
    table.Refuse("name",
                 "must be of letters, digits, '.', '_' and '-', at "
                 "most 64 of them");
  }
  if (volume.path.empty() || volume.path[0] != '/') {
    table.Refuse("path", "must be an absolute path");
  }
  if (volume.kind != "thin" && volume.kind != "block" &&
      volume.kind != "file" && volume.kind != "qcow2") {
    table.Refuse("kind", "must be thin, block, file or qcow2");
  }
  if (volume.folder() && volume.kind != "qcow2") {
    table.Refuse("path", "only of kind qcow2 it may be a folder");
  }
  return volume;
}

}  // namespace

absl::StatusOr<VolumeConfig> ImageInFolder(const VolumeConfig& volume,
                                           const std::string& file) {
  constexpr std::string_view kSuffix = ".qcow2";
  if (!IsFileName(file) || !file.ends_with(kSuffix)) {
    return Error(Reason::kTargetUnsuitable,
                 "\"" + file + "\" can't be the name of an image in " +
                     volume.path +
                     ": letters, digits, '.', '_' and '-', and .qcow2 at its "
                     "end");
  }
  VolumeConfig image = volume;
  image.name += "/" + file;
  image.path += file;
  return image;
}

absl::StatusOr<AgentConfig> ReadAgentConfig(const std::string& path) {
  SNAPSYNC_ASSIGN_OR_RETURN(TomlTable root, TomlTable::ParseFile(path));
  AgentConfig config;
  TomlTable agent = root.Table("agent");
  config.name = agent.String("name", "");
  if (agent.Has("listen")) config.listen = agent.Strings("listen");
  config.state_directory =
      agent.String("state-directory", config.state_directory);
  const int64_t timeout = agent.Integer("timeout", 120);
  if (timeout < 0) agent.Refuse("timeout", "must be 0 (never) or more seconds");
  config.timeout_seconds = static_cast<uint64_t>(timeout);
  const int64_t expiry = agent.Integer("session-expiry", 86400);
  if (expiry < 0) {
    agent.Refuse("session-expiry", "must be 0 (never) or more seconds");
  }
  config.session_expiry_seconds = static_cast<uint64_t>(expiry);
  config.bytes_per_second = agent.Size("speed-limit", 0);
  config.manifests = agent.Boolean("manifests", true);
  if (config.listen.empty()) {
    agent.Refuse("listen", "needs at least one \"ADDRESS:PORT\"");
  }
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
  for (TomlTable& table : root.Tables("client")) {
    config.clients.push_back(ReadClient(table));
  }
  std::set<std::string> names;
  std::set<std::string> paths;
  for (TomlTable& table : root.Tables("volume")) {
    VolumeConfig volume = ReadVolume(table);
    if (!names.insert(volume.name).second) {
      table.Refuse("name", "two volumes have this name");
    }
    if (!paths.insert(volume.path).second) {
      table.Refuse("path", "two volumes have this path");
    }
    config.volumes.push_back(std::move(volume));
  }
  SNAPSYNC_RETURN_IF_ERROR(root.Finish());
  return config;
}

}  // namespace snapsync
