// SPDX-License-Identifier: Apache-2.0
//
// The agent's configuration file (TOML): docs/operating.md has every key.
// Unknown keys are refused with their line. All errors are kConfiguration.
#ifndef SNAPSYNC_AGENT_CONFIG_H_
#define SNAPSYNC_AGENT_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/log.h"

namespace snapsync {

struct ClientConfig {
  std::string name;                  // the node's name in its certificate
  std::vector<std::string> allow;    // rights (docs/operating.md)
  std::vector<std::string> volumes;  // names, "*" at the end matches any rest
};

struct VolumeConfig {
  std::string name;
  // Of kind qcow2 it may be a folder, ending in '/': each image in it is a
  // volume NAME/FILE.
  std::string path;
  std::string kind;   // thin, block, file, qcow2
  uint64_t keep = 3;  // generations: snapshots, or the files of a chain

  bool folder() const { return path.ends_with('/'); }
};

// The volume that is the image `file` in the folder `volume`. kTargetUnsuitable
// for what can't be the name of one.
absl::StatusOr<VolumeConfig> ImageInFolder(const VolumeConfig& volume,
                                           const std::string& file);

struct AgentConfig {
  std::string name;
  std::vector<std::string> listen = {"0.0.0.0:7780"};
  std::string state_directory = "/var/lib/snapsync";
  uint64_t timeout_seconds = 120;
  uint64_t session_expiry_seconds = 86400;  // 0: never
  uint64_t bytes_per_second = 0;            // for the whole agent; 0: no limit
  bool manifests = true;                    // keep what scrub compares with
  std::string tls_ca;
  std::string tls_certificate;
  std::string tls_key;
  std::string log_directory;
  Severity log_level = Severity::kInfo;
  std::vector<ClientConfig> clients;
  std::vector<VolumeConfig> volumes;
};

absl::StatusOr<AgentConfig> ReadAgentConfig(const std::string& path);

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_CONFIG_H_
