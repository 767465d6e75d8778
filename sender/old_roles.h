// SPDX-License-Identifier: Apache-2.0
//
// What the command lines of the Python tool that SnapSync replaces need beside
// our own flags: its configuration file. Its roles (master, qcow2_exporter,
// qcow2_importer) are aliases in options.cc; docs/migrating.md has each.
#ifndef SNAPSYNC_SENDER_OLD_ROLES_H_
#define SNAPSYNC_SENDER_OLD_ROLES_H_

#include <string>

#include "absl/status/status.h"
#include "sender/config.h"

namespace snapsync {

// snapsync.cfg (INI): [Logging] directory and file_level, the latter with
// Python's numbers (10 debug, 20 info, 30 warning, 40 error, 50 critical) or
// our names. What it says goes into `config`. kConfiguration with the line.
absl::Status ReadOldConfig(const std::string& path, SenderConfig& config);

}  // namespace snapsync

#endif  // SNAPSYNC_SENDER_OLD_ROLES_H_
