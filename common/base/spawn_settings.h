// SPDX-License-Identifier: Apache-2.0
//
// What posix_spawn() is told of a new process, freed at the end. Used by one
// thread at a time.
#ifndef SNAPSYNC_COMMON_BASE_SPAWN_SETTINGS_H_
#define SNAPSYNC_COMMON_BASE_SPAWN_SETTINGS_H_

#include <spawn.h>

namespace snapsync {

class SpawnSettings {
 public:
  SpawnSettings() {
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawnattr_init(&attributes);
  }
  ~SpawnSettings() {
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BASE_SPAWN_SETTINGS_H_
