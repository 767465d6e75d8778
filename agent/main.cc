// SPDX-License-Identifier: Apache-2.0
//
// snapsync-agent: the service that owns a NAS's devices and receives replicas.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <string>

#include "agent/config.h"
#include "agent/grpc_own_agent.h"
#include "agent/grpc_scrub_command.h"
#include "agent/grpc_server.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/units.h"
#include "common/wire/tls.h"

namespace {

constexpr int kUsage = 2;

int Fail(const absl::Status& status) {
  std::cerr << "snapsync-agent: " << snapsync::MessageOf(status) << "\n";
  return snapsync::ExitCode(status);
}

int RunServe(const snapsync::AgentConfig& config) {
  snapsync::LogOptions log;
  log.program = "snapsync-agent";
  log.directory = config.log_directory;
  log.file_level = config.log_level;
  log.console_level = snapsync::Severity::kInfo;
  if (absl::Status s = snapsync::StartLog(log); !s.ok()) return Fail(s);
  const absl::Status status = snapsync::Serve(config);
  return status.ok() ? 0 : Fail(status);
}

int RunCheckConfig(const std::string& path,
                   const snapsync::AgentConfig& config) {
  const auto node = snapsync::wire::CheckTlsFiles(
      {config.tls_ca, config.tls_certificate, config.tls_key});
  if (!node.ok()) return Fail(node.status());
  std::cout << path << ": good. This is node " << *node << ", with "
            << config.volumes.size() << " volumes and " << config.clients.size()
            << " clients.\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Receives replicas of thin volumes from snapsync-send.",
               "snapsync-agent");
  app.set_version_flag("--version", "snapsync-agent " SNAPSYNC_VERSION);
  std::string path = "/etc/snapsync/agent.toml";
  app.add_option("-c,--config", path, "The configuration file")
      ->capture_default_str();
  app.fallthrough();
  app.require_subcommand(0, 1);
  app.add_subcommand("serve", "Run the service (the default)");
  const CLI::App* check = app.add_subcommand(
      "check-config", "Check the configuration file and the certificates");
  CLI::App* promote = app.add_subcommand(
      "promote",
      "Have a replica written to here: it receives nothing until a revert has "
      "brought its state back");
  std::string volume;
  promote->add_option("volume", volume, "Its name or path")->required();
  CLI::App* scrub = app.add_subcommand(
      "scrub",
      "Compare the newest generation of a volume on the disk with the manifest "
      "of what was written");
  scrub->add_option("volume", volume, "Its name or path")->required();
  snapsync::ScrubOptions scrub_options;
  scrub->add_option("--from", scrub_options.from,
                    "Begin at this byte, where an earlier one ended");
  std::string speed_limit = "0";
  scrub->add_option("--speed-limit", speed_limit,
                    "Bytes per second, with K, M or G; 0: none");
  scrub->add_flag("--renew", scrub_options.renew,
                  "Forget the manifest, and record what is there");
  bool json = false;
  scrub->add_flag("--json", json, "The result as JSON on stdout");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsage;
  }
  const auto config = snapsync::ReadAgentConfig(path);
  if (!config.ok()) return Fail(config.status());
  if (promote->parsed()) {
    const absl::Status status = snapsync::PromoteVolume(*config, volume);
    if (!status.ok()) return Fail(status);
    std::cout << volume << " is promoted: it may be written to here.\n";
    return 0;
  }
  if (scrub->parsed()) {
    const auto limit = snapsync::ParseSize(speed_limit);
    if (!limit.ok()) return Fail(limit.status());
    scrub_options.bytes_per_second = *limit;
    const absl::Status status =
        snapsync::RunScrubCommand(*config, volume, scrub_options, json);
    return status.ok() ? 0 : Fail(status);
  }
  return check->parsed() ? RunCheckConfig(path, *config) : RunServe(*config);
}
