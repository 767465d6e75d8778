// SPDX-License-Identifier: Apache-2.0
#include "common/generations/held_generations.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "common/base/units.h"

namespace snapsync {
namespace {

constexpr std::string_view kPrefix = "snapsync.generation=";

std::optional<HeldGeneration> ParseTag(std::string_view tag) {
  if (!tag.starts_with(kPrefix)) return std::nullopt;
  tag.remove_prefix(kPrefix.size());
  const std::vector<std::string> parts =
      absl::StrSplit(absl::string_view(tag.data(), tag.size()), ':');
  HeldGeneration held;
  if (parts.size() != 3 || !absl::SimpleAtoi(parts[1], &held.mapped_bytes) ||
      !absl::SimpleAtoi(parts[2], &held.size)) {
    return std::nullopt;
  }
  const std::optional<Id128> id = Id128::Parse(parts[0]);
  if (!id || id->none()) return std::nullopt;
  held.generation = *id;
  return held;
}

}  // namespace

std::string GenerationTag(const Id128& generation, uint64_t mapped_bytes,
                          uint64_t size) {
  return std::string(kPrefix) + generation.ToString() + ":" +
         std::to_string(mapped_bytes) + ":" + std::to_string(size);
}

std::vector<HeldGeneration> FindHeldGenerations(const VolumeGroup& group,
                                                const std::string& pool_uuid) {
  std::vector<HeldGeneration> found;
  for (const LogicalVolume& volume : group.volumes) {
    if (volume.pool_uuid != pool_uuid || !volume.thin_id || volume.merging) {
      continue;
    }
    for (const std::string& tag : volume.tags) {
      std::optional<HeldGeneration> held = ParseTag(tag);
      if (!held) continue;
      held->snapshot = volume;
      found.push_back(*std::move(held));
    }
  }
  std::stable_sort(
      found.begin(), found.end(), [](const auto& a, const auto& b) {
        return a.snapshot.transaction_id > b.snapshot.transaction_id;
      });
  return found;
}

std::optional<Id128> ChooseCommon(const std::vector<Id128>& candidates,
                                  const std::vector<HeldGeneration>& held) {
  auto best = candidates.end();
  std::string snapshot;
  for (const HeldGeneration& one : held) {
    if (best != candidates.end() && one.snapshot.uuid != snapshot) break;
    const auto found =
        std::find(candidates.begin(), candidates.end(), one.generation);
    if (found >= best) continue;
    best = found;
    snapshot = one.snapshot.uuid;
  }
  if (best == candidates.end()) return std::nullopt;
  return *best;
}

BaseRecord RecordOf(const HeldGeneration& held, uint64_t chunk_size) {
  BaseRecord record;
  record.vg_uuid = held.snapshot.group_uuid;
  record.pool_uuid = held.snapshot.pool_uuid;
  record.lv_uuid = held.snapshot.uuid;
  record.device_id = *held.snapshot.thin_id;
  record.transaction_id = held.snapshot.transaction_id;
  record.mapped_blocks = chunk_size == 0 ? 0 : held.mapped_bytes / chunk_size;
  record.data_block_sectors = static_cast<uint32_t>(chunk_size / kSectorBytes);
  record.device_size = std::min(held.size, held.snapshot.size);
  return record;
}

DeltaRequest RequestDelta(const VolumeGroup& group,
                          const LogicalVolume& snapshot,
                          const BaseRecord& base) {
  DeltaRequest request;
  request.snapshot_id = *snapshot.thin_id;
  request.snapshot_size = snapshot.size;
  request.base = base;
  request.facts.vg_uuid = snapshot.group_uuid;
  request.facts.pool_uuid = snapshot.pool_uuid;
  request.facts.snapshot_lv_uuid = snapshot.uuid;
  if (const LogicalVolume* holder =
          group.FindThinId(snapshot.pool_uuid, base.device_id)) {
    request.facts.base_lv_uuid = holder->uuid;
  }
  return request;
}

}  // namespace snapsync
