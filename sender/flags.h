// SPDX-License-Identifier: Apache-2.0
//
// The command line of snapsync-send as it was given: every subcommand with its
// flags, and the roles of the tool before this one. What it means, together
// with the configuration, is options.h.
#ifndef SNAPSYNC_SENDER_FLAGS_H_
#define SNAPSYNC_SENDER_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "sender/delta_command.h"

namespace snapsync {

inline constexpr char kDefaultConfig[] = "/etc/snapsync/send.toml";
inline constexpr char kDefaultOldConfig[] = "/etc/snapsync/snapsync.cfg";

enum class Subcommand {
  kSync,
  kVerify,
  kAbort,
  kRevert,
  kDelta,
  kExport,
  kImport
};

// Flags as they were given; what is missing comes from the configuration.
struct Flags {
  Subcommand subcommand = Subcommand::kSync;
  // What is left to print and nothing to do (--help, --version).
  std::optional<std::string> text;
  // In the words of the tool before this one.
  bool old_role = false;

  std::optional<std::string> config;
  std::optional<std::string> state_directory;
  std::optional<int> port;
  std::optional<uint64_t> timeout;
  std::optional<uint64_t> retry_for;
  std::optional<std::string> speed_limit;
  std::optional<std::string> tls_ca;
  std::optional<std::string> tls_certificate;
  std::optional<std::string> tls_key;
  std::optional<std::string> log_directory;
  std::optional<std::string> file_level;

  std::string source;
  std::string destination;
  std::string replication;
  std::optional<std::string> meta;
  std::optional<uint32_t> id;
  std::string encrypt;
  bool encrypts = false;
  std::string resume = "auto";
  std::string method = "auto";
  bool allow_full = false;
  bool yes = false;
  bool dry_run = false;
  bool take_over = false;
  bool no_verify = false;
  bool save_mappings = false;
  bool json = false;

  std::optional<std::string> old_config;

  std::string qcow;
  std::string cluster_size;
  std::string compression;
  bool chain = false;
  uint64_t keep = 0;
  bool allow_anywhere = false;
  bool allow_data_file = false;
  bool allow_corrupt = false;
  std::string backing_format;

  DeltaOptions delta;
  std::string base_id;
  std::string size;
  bool metadata_snapshot = false;

  std::optional<int> source_port;
  bool list = false;
  bool repair = false;
};

// kUsage for what no subcommand takes.
absl::StatusOr<Flags> ParseFlags(int argc, const char* const* argv);

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_FLAGS_H_
