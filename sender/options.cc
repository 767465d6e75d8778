// SPDX-License-Identifier: Apache-2.0
#include "sender/options.h"

#include <unistd.h>

#include <bit>
#include <cstdlib>
#include <utility>

#include "absl/strings/numbers.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "sender/flags.h"
#include "sender/old_roles.h"

namespace snapsync {
namespace {

constexpr uint64_t kLowestLimit = 64 * kKiB;
constexpr uint64_t kSmallestCluster = 4 * kKiB;
constexpr uint64_t kLargestCluster = 2 * kMiB;
constexpr int kSshPort = 22;
constexpr size_t kLongestReplication = 128;

bool IsRemote(const std::string& text) {
  const auto parsed = ParseDestination(text);
  return parsed.ok() && !parsed->local();
}

absl::StatusOr<SenderConfig> MergeConfig(const Flags& flags) {
  SenderConfig config;
  const bool has_default = ::access(kDefaultConfig, R_OK) == 0;
  if (flags.config || has_default) {
    SNAPSYNC_ASSIGN_OR_RETURN(
        config, ReadSenderConfig(flags.config.value_or(kDefaultConfig)));
  }
  config.state_directory =
      flags.state_directory.value_or(config.state_directory);
  config.port = flags.port.value_or(config.port);
  config.timeout_seconds = flags.timeout.value_or(config.timeout_seconds);
  if (flags.retry_for) {
    config.retry_for_seconds = *flags.retry_for;
    config.connect_for_seconds = *flags.retry_for;
  } else if (flags.old_role && flags.timeout) {
    // To the old tool it was the end.
    config.retry_for_seconds = *flags.timeout;
  }
  if (flags.speed_limit) {
    SNAPSYNC_ASSIGN_OR_RETURN(config.bytes_per_second,
                              ParseSize(*flags.speed_limit));
  }
  config.tls_ca = flags.tls_ca.value_or(config.tls_ca);
  config.tls_certificate =
      flags.tls_certificate.value_or(config.tls_certificate);
  config.tls_key = flags.tls_key.value_or(config.tls_key);
  config.log_directory = flags.log_directory.value_or(config.log_directory);
  if (flags.file_level) {
    const auto level = ParseSeverity(*flags.file_level);
    if (!level) {
      return Error(Reason::kUsage,
                   "--file-level must be debug, info, warning or error");
    }
    config.log_level = *level;
  }
  return config;
}

// What the old tool's lines mean beside our flags.
absl::Status ApplyOldRole(Flags& flags, SenderConfig& config,
                          std::vector<std::string>& warnings) {
  if (flags.port == kSshPort) {
    flags.port.reset();
    warnings.push_back(
        "--port 22 is ssh's port: the agent's default port is taken");
  }
  SNAPSYNC_ASSIGN_OR_RETURN(config, MergeConfig(flags));
  if (flags.old_config || ::access(kDefaultOldConfig, R_OK) == 0) {
    SNAPSYNC_RETURN_IF_ERROR(
        ReadOldConfig(flags.old_config.value_or(kDefaultOldConfig), config));
  }
  return absl::OkStatus();
}

// user@: the certificate USER.crt beside the one of the configuration, if there
// is one.
void ChooseIdentity(const std::string& user, SenderConfig& config,
                    std::vector<std::string>& warnings) {
  if (user.empty()) return;
  const size_t slash = config.tls_certificate.rfind('/');
  const std::string directory =
      slash == std::string::npos ? ""
                                 : config.tls_certificate.substr(0, slash + 1);
  const std::string certificate = directory + user + ".crt";
  const std::string key = directory + user + ".key";
  if (user.find('/') == std::string::npos &&
      ::access(certificate.c_str(), R_OK) == 0 &&
      ::access(key.c_str(), R_OK) == 0) {
    config.tls_certificate = certificate;
    config.tls_key = key;
    return;
  }
  warnings.push_back("there is no certificate " + certificate +
                     " with its key: " + user +
                     "@ is ignored, this node's own is shown");
}

// "VOLUME@7", "VOLUME@g7" or "VOLUME@" and 32 hex digits.
absl::Status TakeGeneration(std::string& source, RevertCommand& command) {
  const size_t at = source.rfind('@');
  // USER@ stands before the colon.
  if (at == std::string::npos || source.find(':', at) != std::string::npos) {
    return absl::OkStatus();
  }
  const std::string text = source.substr(at + 1);
  const std::string digits = text.starts_with("g") ? text.substr(1) : text;
  if (const auto id = Id128::Parse(text); id && !id->none()) {
    command.generation = *id;
  } else if (!absl::SimpleAtoi(digits, &command.number) ||
             command.number == 0) {
    return Error(Reason::kUsage,
                 "--src …@" + text +
                     ": neither the number nor the name of a generation; "
                     "revert --list shows what there is");
  }
  source.resize(at);
  return absl::OkStatus();
}

absl::StatusOr<Command> MakeRevert(Flags flags) {
  RevertCommand command;
  if (flags.subcommand == Subcommand::kImport) command.name = "import";
  if (flags.old_role) {
    SNAPSYNC_RETURN_IF_ERROR(
        ApplyOldRole(flags, command.config, command.warnings));
    // The old tool did not ask.
    flags.yes = true;
  } else {
    SNAPSYNC_ASSIGN_OR_RETURN(command.config, MergeConfig(flags));
  }
  SNAPSYNC_RETURN_IF_ERROR(TakeGeneration(flags.source, command));
  SNAPSYNC_ASSIGN_OR_RETURN(command.source, ParseDestination(flags.source));
  if (flags.list && flags.destination.empty()) {
    flags.destination = flags.source;
  }
  SNAPSYNC_ASSIGN_OR_RETURN(command.target,
                            ParseDestination(flags.destination));
  if (command.source.local() || command.target.local()) {
    return Error(Reason::kUsage,
                 command.name +
                     " needs HOST:VOLUME for --src and for --dst: the agents "
                     "at both do the work");
  }
  if (!flags.list && (flags.replication.empty() ||
                      flags.replication.size() > kLongestReplication)) {
    return Error(Reason::kUsage, "--uuid must have 1 to 128 characters");
  }
  if (!flags.list && !flags.yes && !flags.dry_run) {
    return Error(Reason::kUsage,
                 command.name + " makes " + flags.destination + " what " +
                     flags.source +
                     " is; what it holds now stays as a generation of a thin "
                     "volume. Say --yes "
                     "to do it, --dry-run to see what would be sent");
  }
  command.source_port = flags.source_port.value_or(command.config.port);
  command.replication = flags.replication;
  command.method = flags.method;
  command.allow_full = flags.allow_full;
  command.yes = flags.yes;
  command.dry_run = flags.dry_run;
  command.list = flags.list;
  command.json = flags.json;
  ChooseIdentity(command.target.user, command.config, command.warnings);
  return command;
}

absl::StatusOr<Command> MakeSync(Flags flags) {
  SyncCommand command;
  const bool to_image = !flags.qcow.empty();
  if (to_image) flags.destination = flags.qcow;
  if (flags.destination.empty()) {
    return Error(Reason::kUsage, "--dst or --qcow is missing");
  }
  if (flags.old_role) {
    SNAPSYNC_RETURN_IF_ERROR(
        ApplyOldRole(flags, command.config, command.warnings));
  } else {
    SNAPSYNC_ASSIGN_OR_RETURN(command.config, MergeConfig(flags));
  }
  SNAPSYNC_ASSIGN_OR_RETURN(command.destination,
                            ParseDestination(flags.destination));
  ChooseIdentity(command.destination.user, command.config, command.warnings);
  if (flags.replication.empty() ||
      flags.replication.size() > kLongestReplication) {
    return Error(Reason::kUsage, "--uuid must have 1 to 128 characters");
  }
  if (flags.encrypts && command.destination.local()) {
    command.warnings.push_back(
        "--encrypt: a local sync crosses no network, nothing is to encrypt");
  } else if (!flags.encrypt.empty()) {
    command.warnings.push_back("--encrypt " + flags.encrypt +
                               " means TLS 1.3 with AES-256-GCM here");
  }
  command.verify = flags.subcommand == Subcommand::kVerify;
  command.repair = flags.repair;
  command.abort = flags.subcommand == Subcommand::kAbort;
  if (command.abort) command.name = "abort";
  SyncOptions& sync = command.sync;
  sync.source.path = flags.source;
  sync.source.meta = flags.meta;
  sync.source.id = flags.id;
  sync.source.state_directory = command.config.state_directory;
  sync.destination = command.destination.local()
                         ? StablePath(command.destination.volume)
                         : flags.destination;
  sync.volume = command.destination.volume;
  sync.replication = flags.replication;
  sync.method = flags.method;
  sync.overwrite = flags.allow_full || flags.yes;
  sync.allow_full = flags.allow_full;
  sync.dry_run = flags.dry_run;
  sync.take_over = flags.take_over;
  sync.no_verify = flags.no_verify;
  sync.to_image = to_image;
  sync.save_mappings = flags.save_mappings || command.config.save_mappings;
  if (flags.resume != "auto") {
    SNAPSYNC_ASSIGN_OR_RETURN(sync.pump.resume_from_bytes,
                              ParseSize(flags.resume));
  }
  sync.pump.retry_for = std::chrono::seconds(command.config.retry_for_seconds);
  sync.pump.connect_for =
      std::chrono::seconds(command.config.connect_for_seconds);
  sync.pump.bytes_per_second = command.config.bytes_per_second;
  if (sync.pump.bytes_per_second > 0 &&
      sync.pump.bytes_per_second < kLowestLimit) {
    return Error(Reason::kUsage,
                 "--speed-limit must be 0 or at least 64K: a chunk of 1 MiB "
                 "must get through within the timeout");
  }
  command.json = flags.json;
  return command;
}

// A session into an image.
absl::StatusOr<Command> MakeExport(Flags flags) {
  if (flags.replication.empty()) flags.replication = "export";
  // The old tool did not ask.
  flags.yes |= flags.old_role;
  ExportOptions image;
  if (!flags.size.empty()) {
    SNAPSYNC_ASSIGN_OR_RETURN(image.virtual_size, ParseSize(flags.size));
    if (image.virtual_size % kSectorBytes != 0) {
      return Error(Reason::kUsage, "--size must be a multiple of 512");
    }
  }
  if (!flags.cluster_size.empty()) {
    SNAPSYNC_ASSIGN_OR_RETURN(image.cluster_size,
                              ParseSize(flags.cluster_size));
    if (image.cluster_size < kSmallestCluster ||
        image.cluster_size > kLargestCluster ||
        !std::has_single_bit(image.cluster_size)) {
      return Error(Reason::kUsage,
                   "--cluster-size must be a power of two, 4K to 2M");
    }
  }
  image.compression = flags.compression;
  image.chain = flags.chain;
  image.keep = flags.keep;
  if (image.keep != 0 && !image.chain) {
    return Error(Reason::kUsage, "--keep is for a chain: say --chain, too");
  }
  SNAPSYNC_ASSIGN_OR_RETURN(Command command, MakeSync(std::move(flags)));
  auto& sync = std::get<SyncCommand>(command);
  sync.name = "export";
  sync.sync.image = image;
  return command;
}

// A sync whose source is an image.
absl::StatusOr<Command> MakeImport(Flags flags) {
  if (flags.replication.empty()) flags.replication = "import";
  flags.yes |= flags.old_role;  // as above
  if (IsRemote(flags.source)) {
    if (!IsRemote(flags.destination)) {
      return Error(Reason::kUsage,
                   "the image's agent sends to an agent: --dst must be "
                   "HOST:VOLUME, this host's own agent for a volume of this "
                   "host");
    }
    if (flags.take_over) {
      return Error(Reason::kUsage,
                   "--take-over is for images of this host: abort --take-over "
                   "ends what another sender is doing with the volume");
    }
    if (flags.allow_anywhere || flags.allow_data_file || flags.allow_corrupt ||
        !flags.backing_format.empty()) {
      return Error(Reason::kUsage,
                   "--allow-anywhere, --allow-data-file, --allow-corrupt and "
                   "--backing-format are for images of this host: run the "
                   "import on " +
                       flags.source.substr(0, flags.source.find(':')));
    }
    return MakeRevert(std::move(flags));
  }
  ImageSource image;
  image.allow_anywhere = flags.allow_anywhere;
  image.allow_data_file = flags.allow_data_file;
  image.allow_corrupt = flags.allow_corrupt;
  image.backing_format = flags.backing_format;
  flags.meta.reset();
  flags.id.reset();
  SNAPSYNC_ASSIGN_OR_RETURN(Command command, MakeSync(std::move(flags)));
  auto& sync = std::get<SyncCommand>(command);
  sync.name = "import";
  sync.sync.source.image = image;
  return command;
}

absl::StatusOr<Command> MakeDelta(const Flags& flags) {
  DeltaOptions delta = flags.delta;
  if (flags.base_id != "none") {
    uint32_t id = 0;
    if (!absl::SimpleAtoi(flags.base_id, &id)) {
      return Error(Reason::kUsage, "--base-id must be a thin id or \"none\"");
    }
    delta.base_id = id;
  }
  if (!flags.size.empty()) {
    SNAPSYNC_ASSIGN_OR_RETURN(delta.size, ParseSize(flags.size));
  }
  SNAPSYNC_ASSIGN_OR_RETURN(const SenderConfig config, MergeConfig(flags));
  delta.state_directory = config.state_directory;
  delta.json = flags.json;
  return delta;
}

}  // namespace

absl::StatusOr<Command> ParseCommandLine(int argc, const char* const* argv) {
  SNAPSYNC_ASSIGN_OR_RETURN(Flags flags, ParseFlags(argc, argv));
  if (flags.text) return Command(*flags.text);
  switch (flags.subcommand) {
    case Subcommand::kDelta:
      return MakeDelta(flags);
    case Subcommand::kRevert:
      return MakeRevert(std::move(flags));
    case Subcommand::kExport:
      return MakeExport(std::move(flags));
    case Subcommand::kImport:
      return MakeImport(std::move(flags));
    case Subcommand::kSync:
    case Subcommand::kVerify:
    case Subcommand::kAbort:
      break;
  }
  // Both ends remote: the old tool's revert program.
  if (flags.old_role && IsRemote(flags.source) && IsRemote(flags.destination)) {
    return MakeRevert(std::move(flags));
  }
  return MakeSync(std::move(flags));
}

}  // namespace snapsync
