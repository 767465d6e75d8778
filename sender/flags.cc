// SPDX-License-Identifier: Apache-2.0
#include "sender/flags.h"

#include <CLI/CLI.hpp>
#include <sstream>

#include "common/base/error.h"

namespace snapsync {
namespace {

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

void AddMetadataFlags(CLI::App& app, Flags& flags) {
  app.add_option("--meta", flags.meta,
                 "The pool's metadata device or a metadata file (found when "
                 "left out)");
  app.add_option("--id", flags.id, "The thin id of --src (found when left out)")
      ->check(CLI::Range(0, (1 << 24) - 1));
}

void AddTransferFlags(CLI::App& app, Flags& flags) {
  app.add_option("--port", flags.port, "The agent's port")
      ->check(CLI::Range(1, 65535));
  app.add_option("--timeout", flags.timeout,
                 "Seconds without progress after which a connection is given "
                 "up and made anew; 0: never");
  app.add_option("--retry-for", flags.retry_for,
                 "Seconds without progress after which the whole is given up "
                 "(exit code 4); 0: never (default 600)");
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
  app.add_flag("-n,--dry-run", flags.dry_run,
               "Say what would be sent; write nothing");
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
  AddMetadataFlags(app, flags);
  AddTransferFlags(app, flags);
  app.add_option(
         "--method", flags.method,
         "How to find what to send: auto, metadata, saved, hash or full")
      ->check(CLI::IsMember({"auto", "metadata", "saved", "hash", "full"}));
  app.add_flag("--save-mappings", flags.save_mappings,
               "Have the next sync find what differs from the base's mappings "
               "when the base is gone by then");
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

void AddTakeOverFlag(CLI::App& app, Flags& flags) {
  app.add_flag("--take-over", flags.take_over,
               "End what another sender is doing with the target");
}

void AddWriteFlags(CLI::App& app, Flags& flags) {
  AddTakeOverFlag(app, flags);
  app.add_flag("--no-verify", flags.no_verify,
               "Do not read back what was written before it counts");
}

// An export instead of a volume.
void AddImageFlag(CLI::App& app, Flags& flags) {
  CLI::Option* image = app.add_option(
      "--qcow", flags.qcow, "Instead of --dst: the image of an export");
  app.get_option("--dst")->required(false)->excludes(image);
}

void AddExportFlags(CLI::App& app, Flags& flags) {
  AddWriteFlags(app, flags);
  app.add_option("--src", flags.source,
                 "What to export: a thin volume (a snapshot of it is made), a "
                 "snapshot, a device or a file")
      ->required();
  app.add_option("--qcow", flags.qcow,
                 "The image: a path on this host, or HOST:PATH in a folder of "
                 "the agent there")
      ->required();
  app.add_option("--size", flags.size,
                 "The image's size, with K, M, G or T; not below that of --src "
                 "(default: the same)");
  app.add_option("--uuid", flags.replication,
                 "Names this export; with the same name and path it is "
                 "brought up to date");
  AddMetadataFlags(app, flags);
  AddTransferFlags(app, flags);
  app.add_option("--cluster-size", flags.cluster_size, "4K to 2M; default 64K");
  app.add_option("--compress", flags.compression, "zstd, zlib or none")
      ->check(CLI::IsMember({"zstd", "zlib", "none"}));
  app.add_flag("--chain", flags.chain,
               "Write what changed to an overlay of its own, NAME.gN.qcow2");
  app.add_option("--keep", flags.keep,
                 "Of a chain, keep so many; older ones are folded into the "
                 "oldest that stays")
      ->check(CLI::Range(1, 15));
}

void AddImportFlags(CLI::App& app, Flags& flags) {
  AddWriteFlags(app, flags);
  app.add_option("--src", flags.source,
                 "The image: a path on this host, or HOST:PATH in a folder of "
                 "the agent there")
      ->required();
  app.add_option("--dst", flags.destination,
                 "Where to: HOST:VOLUME of the agent there, or /PATH of a "
                 "device or file on this host")
      ->required();
  app.add_option("--uuid", flags.replication, "Names this import");
  AddTransferFlags(app, flags);
  app.add_flag("--allow-anywhere", flags.allow_anywhere,
               "Files that the image names may be anywhere, and be links");
  app.add_flag("--allow-data-file", flags.allow_data_file,
               "The image may have its data in another file");
  app.add_flag("--allow-corrupt", flags.allow_corrupt,
               "Read an image that is marked as corrupt");
  app.add_option("--backing-format", flags.backing_format,
                 "Of backing files whose format the image does not say")
      ->check(CLI::IsMember({"raw", "qcow2"}));
}

void AddDeltaFlags(CLI::App& app, Flags& flags) {
  DeltaOptions& delta = flags.delta;
  app.add_option("--meta", delta.meta, "Metadata device or file")->required();
  app.add_option("--base-id", flags.base_id,
                 "Thin id of the base, or \"none\": all that is mapped")
      ->required();
  app.add_option("--id", delta.id, "Thin id of the snapshot")->required();
  app.add_option("--size", flags.size, "Size of the snapshot: clip to it");
  app.add_flag("--metadata-snapshot", delta.metadata_snapshot,
               "Read the metadata snapshot that the metadata holds");
}

}  // namespace

absl::StatusOr<Flags> ParseFlags(int argc, const char* const* argv) {
  Flags flags;
  CLI::App app(
      "Replicates snapshots of thin volumes, sending only what "
      "changed. The command lines of its predecessor still work: "
      "docs/migrating.md.",
      "snapsync-send");
  app.set_version_flag("--version", "snapsync-send " SNAPSYNC_VERSION);
  app.require_subcommand(1);
  const auto add = [&](const char* name, Subcommand subcommand,
                       const char* description) {
    CLI::App* made = app.add_subcommand(name, description);
    made->callback([&flags, subcommand] { flags.subcommand = subcommand; });
    AddCommonFlags(*made, flags);
    return made;
  };
  CLI::App* sync_app =
      add("sync", Subcommand::kSync,
          "Bring a snapshot to a volume of an agent, or to a local target");
  AddSyncFlags(*sync_app, flags);
  AddWriteFlags(*sync_app, flags);
  CLI::App* verify_app =
      add("verify", Subcommand::kVerify,
          "Read source and replica whole, and tell what differs");
  AddSyncFlags(*verify_app, flags);
  AddImageFlag(*verify_app, flags);
  verify_app->add_flag("--repair", flags.repair, "Send what differs");
  CLI::App* abort_app =
      add("abort", Subcommand::kAbort,
          "Give an interrupted sync up: the target is what it was");
  AddSyncFlags(*abort_app, flags);
  AddImageFlag(*abort_app, flags);
  AddTakeOverFlag(*abort_app, flags);
  abort_app->get_option("--src")->required(false);
  CLI::App* revert_app =
      add("revert", Subcommand::kRevert,
          "Bring a volume back to what its replica holds or held");
  AddSyncFlags(*revert_app, flags);
  AddRevertFlags(*revert_app, flags);
  AddExportFlags(*add("export", Subcommand::kExport,
                      "Write a snapshot to a QCOW2 image, or what changed to "
                      "the image of before"),
                 flags);
  AddImportFlags(*add("import", Subcommand::kImport,
                      "Write what a QCOW2 image holds to a volume"),
                 flags);
  AddDeltaFlags(*add("delta", Subcommand::kDelta,
                     "Print what changed between two thin devices of a pool"),
                flags);
  const auto add_old = [&](const char* name, Subcommand subcommand) {
    CLI::App* role = add(name, subcommand, "See docs/migrating.md");
    role->group("");
    role->callback([&flags, subcommand] {
      flags.subcommand = subcommand;
      flags.old_role = true;
    });
    role->add_option("--cfg", flags.old_config,
                     std::string("The old configuration file (default ") +
                         kDefaultOldConfig + ", if it exists)");
    return role;
  };
  AddSyncFlags(*add_old("master", Subcommand::kSync), flags);
  AddExportFlags(*add_old("qcow2_exporter", Subcommand::kExport), flags);
  CLI::App* importer = add_old("qcow2_importer", Subcommand::kImport);
  AddImportFlags(*importer, flags);
  AddMetadataFlags(*importer, flags);  // taken, and of no meaning
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::ostringstream text;
    std::ostringstream complaint;
    if (app.exit(error, text, complaint) != 0) {
      return Error(Reason::kUsage, error.what());
    }
    flags.text = text.str();
    return flags;
  }
  for (const CLI::App* parsed : app.get_subcommands()) {
    const CLI::Option* encrypt = parsed->get_option_no_throw("--encrypt");
    flags.encrypts = encrypt != nullptr && encrypt->count() > 0;
  }
  return flags;
}

}  // namespace snapsync
