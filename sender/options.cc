// SPDX-License-Identifier: Apache-2.0
#include "sender/options.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <sstream>

#include "absl/strings/numbers.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "sender/old_roles.h"

namespace snapsync {
namespace {

constexpr uint64_t kLowestLimit = 64 * kKiB;
constexpr char kDefaultConfig[] = "/etc/snapsync/send.toml";
constexpr char kDefaultOldConfig[] = "/etc/snapsync/snapsync.cfg";
constexpr int kSshPort = 22;
constexpr size_t kLongestReplication = 128;

// Flags as they were given; what is missing comes from the configuration.
struct Flags {
  std::optional<std::string> config;
  std::optional<std::string> state_directory;
  std::optional<int> port;
  std::optional<uint64_t> timeout;
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
  bool save_mappings = false;
  bool json = false;

  bool old_role = false;
  std::optional<std::string> old_config;
  std::string qcow;

  std::string base_id;
  std::string size;
  bool metadata_snapshot = false;

  std::optional<int> source_port;
  bool list = false;
  bool verify = false;
  bool repair = false;
};

void AddCommonFlags(CLI::App& app, Flags& flags) {
  // A flag given twice: the last one counts, so that scripts can append.
  app.option_defaults()->take_last();
  app.add_option("-c,--config", flags.config,
                 std::string("Configuration file (default ") + kDefaultConfig +
                     ", if it exists)")
      ->envname("SNAPSYNC_CONFIG");
  app.add_option("--state-directory", flags.state_directory,
                 "Where bases and interrupted syncs are remembered");
  app.add_flag("--json", flags.json, "The result as JSON on stdout");
}

void AddSyncFlags(CLI::App& app, Flags& flags) {
  app.add_option("--src", flags.source,
                 "What to send: a thin volume (a snapshot of it is made) or a "
                 "snapshot")
      ->required();
  app.add_option("--dst", flags.destination,
                 "Where to: HOST:VOLUME of the agent there, or /PATH of a "
                 "device or file on this host")
      ->required();
  app.add_option("--uuid", flags.replication, "Names this replication")
      ->required();
  app.add_option("--meta", flags.meta,
                 "The pool's metadata device or a metadata file (found when "
                 "left out)");
  app.add_option("--id", flags.id, "The thin id of --src (found when left out)")
      ->check(CLI::Range(0, (1 << 24) - 1));
  app.add_option("--port", flags.port, "The agent's port")
      ->check(CLI::Range(1, 65535));
  app.add_option("--timeout", flags.timeout,
                 "Give up after so many seconds without progress; 0: never");
  app.add_option("--speed-limit", flags.speed_limit,
                 "Bytes per second, with K, M or G; 0: none");
  app.add_option("--encrypt", flags.encrypt,
                 "Demand AES-256 (connections are always mutual TLS 1.3 with "
                 "AES-256-GCM)")
      ->expected(0, 1);
  app.add_option("--resume", flags.resume,
                 "auto, or so many bytes that the agent must hold already");
  app.add_option("--tls-ca", flags.tls_ca, "The CA's certificate (PEM)");
  app.add_option("--tls-cert", flags.tls_certificate,
                 "This node's certificate (PEM)");
  app.add_option("--tls-key", flags.tls_key, "This node's private key (PEM)");
  app.add_option("--log-directory", flags.log_directory, "Log to files there");
  app.add_option("--file-level", flags.file_level,
                 "debug, info, warning or error");
  app.add_flag("--allow-full", flags.allow_full,
               "Overwrite what is on the target, and send everything where "
               "the metadata can't say what differs");
  app.add_flag("-y,--yes", flags.yes,
               "Overwrite what is on the target, sending what differs");
  app.add_option(
         "--method", flags.method,
         "How to find what to send: auto, metadata, saved, hash or full")
      ->check(CLI::IsMember({"auto", "metadata", "saved", "hash", "full"}));
  app.add_flag("--save-mappings", flags.save_mappings,
               "Have the next sync find what differs from the base's mappings "
               "when the base is gone by then");
  app.add_flag("-n,--dry-run", flags.dry_run,
               "Say what would be sent; write nothing");
}

void AddRevertFlags(CLI::App& app, Flags& flags) {
  app.get_option("--dst")->required(false);
  app.get_option("--uuid")->required(false);
  app.get_option("--src")->description(
      "HOST:VOLUME[@GENERATION]: whose state is taken");
  app.get_option("--dst")->description("HOST:VOLUME: what is brought back");
  app.add_option("--src-port", flags.source_port,
                 "The port of the agent at --src, if not --port")
      ->check(CLI::Range(1, 65535));
  app.add_flag("--list", flags.list, "Show what can be gone back to");
}

bool IsRemote(const std::string& text) {
  const auto parsed = ParseDestination(text);
  return parsed.ok() && !parsed->local();
}

// The roles of the tool before this one; not in the help.
CLI::App* AddOldRole(CLI::App& app, const std::string& name, Flags& flags) {
  CLI::App* role = app.add_subcommand(name, "See docs/migrating.md");
  role->group("");
  AddCommonFlags(*role, flags);
  role->add_option("--cfg", flags.old_config,
                   std::string("The old configuration file (default ") +
                       kDefaultOldConfig + ", if it exists)");
  return role;
}

void AddQcowFlags(CLI::App& app, Flags& flags) {
  app.add_option("--meta", flags.meta);
  app.add_option("--id", flags.id)->check(CLI::Range(0, (1 << 24) - 1));
  app.add_option("--uuid", flags.replication);
  app.add_option("--src", flags.source)->required();
}

void AddDeltaFlags(CLI::App& app, Flags& flags, DeltaOptions& delta) {
  app.add_option("--meta", delta.meta, "Metadata device or file")->required();
  app.add_option("--base-id", flags.base_id,
                 "Thin id of the base, or \"none\": all that is mapped")
      ->required();
  app.add_option("--id", delta.id, "Thin id of the snapshot")->required();
  app.add_option("--size", flags.size, "Size of the snapshot: clip to it");
  app.add_flag("--metadata-snapshot", delta.metadata_snapshot,
               "Read the metadata snapshot that the metadata holds");
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
                 "revert needs HOST:VOLUME for --src and for --dst: the agents "
                 "at both do the work");
  }
  if (!flags.list && (flags.replication.empty() ||
                      flags.replication.size() > kLongestReplication)) {
    return Error(Reason::kUsage, "--uuid must have 1 to 128 characters");
  }
  if (!flags.list && !flags.yes && !flags.dry_run) {
    return Error(Reason::kUsage,
                 "revert makes " + flags.destination + " what " + flags.source +
                     " is; what it holds now stays as a generation. Say --yes "
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
  command.verify = flags.verify;
  command.repair = flags.repair;
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
  sync.save_mappings = flags.save_mappings || command.config.save_mappings;
  if (flags.resume != "auto") {
    SNAPSYNC_ASSIGN_OR_RETURN(sync.pump.resume_from_bytes,
                              ParseSize(flags.resume));
  }
  sync.pump.timeout = std::chrono::seconds(command.config.timeout_seconds);
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

absl::StatusOr<Command> MakeDelta(const Flags& flags, DeltaOptions delta) {
  if (flags.base_id != "none") {
    uint32_t id = 0;
    if (!CLI::detail::lexical_cast(flags.base_id, id)) {
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
  Flags flags;
  DeltaOptions delta;
  CLI::App app(
      "Replicates snapshots of thin volumes, sending only what "
      "changed. The command lines of its predecessor still work: "
      "docs/migrating.md.",
      "snapsync-send");
  app.set_version_flag("--version", "snapsync-send " SNAPSYNC_VERSION);
  app.require_subcommand(1);
  CLI::App* sync_app = app.add_subcommand(
      "sync", "Bring a snapshot to a volume of an agent, or to a local target");
  AddCommonFlags(*sync_app, flags);
  AddSyncFlags(*sync_app, flags);
  CLI::App* verify_app = app.add_subcommand(
      "verify", "Read source and replica whole, and tell what differs");
  AddCommonFlags(*verify_app, flags);
  AddSyncFlags(*verify_app, flags);
  verify_app->add_flag("--repair", flags.repair, "Send what differs");
  CLI::App* revert_app = app.add_subcommand(
      "revert", "Bring a volume back to what its replica holds or held");
  AddCommonFlags(*revert_app, flags);
  AddSyncFlags(*revert_app, flags);
  AddRevertFlags(*revert_app, flags);
  CLI::App* delta_app = app.add_subcommand(
      "delta", "Print what changed between two thin devices of a pool");
  AddCommonFlags(*delta_app, flags);
  AddDeltaFlags(*delta_app, flags, delta);
  CLI::App* master_app = AddOldRole(app, "master", flags);
  AddSyncFlags(*master_app, flags);
  CLI::App* exporter_app = AddOldRole(app, "qcow2_exporter", flags);
  AddQcowFlags(*exporter_app, flags);
  exporter_app->add_option("--qcow", flags.qcow)->required();
  exporter_app->add_option("--size", flags.size)->required();
  CLI::App* importer_app = AddOldRole(app, "qcow2_importer", flags);
  AddQcowFlags(*importer_app, flags);
  importer_app->add_option("--dst", flags.destination)->required();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::ostringstream text;
    std::ostringstream complaint;
    if (app.exit(error, text, complaint) == 0) return Command(text.str());
    return Error(Reason::kUsage, error.what());
  }
  if (exporter_app->parsed() || importer_app->parsed()) {
    return Error(Reason::kUsage,
                 "QCOW2 images are not served by this version yet");
  }
  if (delta_app->parsed()) return MakeDelta(flags, delta);
  flags.old_role = master_app->parsed();
  flags.encrypts =
      (flags.old_role ? master_app : sync_app)->count("--encrypt") > 0;
  flags.verify = verify_app->parsed();
  // Both ends remote: the old tool's revert program.
  if (revert_app->parsed() || (flags.old_role && IsRemote(flags.source) &&
                               IsRemote(flags.destination))) {
    return MakeRevert(flags);
  }
  return MakeSync(flags);
}

}  // namespace snapsync
