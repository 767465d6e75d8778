// SPDX-License-Identifier: Apache-2.0
#include "sender/replication_state.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "common/base/atomic_file.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/state_file.h"
#include "common/base/state_json.h"
#include "common/base/status_macros.h"

namespace snapsync {
namespace {

using Json = nlohmann::json;

constexpr char kKind[] = "replication";
constexpr int kStateVersion = 1;
constexpr char kMappingsPrefix[] = "mappings.";
// Of a saved plan: some 30 million extents.
constexpr size_t kMaxPlanBytes = size_t{512} << 20;

Json ToJson(const SnapshotName& snapshot) {
  return {{"group", snapshot.group},
          {"name", snapshot.name},
          {"ours", snapshot.ours}};
}

Json ToJson(const BaseRecord& record) {
  return {{"vg_uuid", record.vg_uuid},
          {"pool_uuid", record.pool_uuid},
          {"lv_uuid", record.lv_uuid},
          {"device_id", record.device_id},
          {"transaction_id", record.transaction_id},
          {"creation_time", record.creation_time},
          {"snapshotted_time", record.snapshotted_time},
          {"mapped_blocks", record.mapped_blocks},
          {"pool_time", record.pool_time},
          {"pool_transaction_id", record.pool_transaction_id},
          {"data_block_sectors", record.data_block_sectors},
          {"device_size", record.device_size},
          {"external_origin", record.external_origin}};
}

Json ToJson(const SavedBase& saved) {
  return {{"mappings", saved.mappings.ToString()},
          {"lv_uuid", saved.witness.lv_uuid},
          {"device_id", saved.witness.device_id},
          {"transaction_id", saved.witness.transaction_id},
          {"creation_time", saved.witness.creation_time}};
}

SnapshotName SnapshotOf(const Json& json) {
  return {json.at("group").get<std::string>(),
          json.at("name").get<std::string>(), json.at("ours").get<bool>()};
}

BaseRecord RecordOf(const Json& json) {
  BaseRecord record;
  json.at("vg_uuid").get_to(record.vg_uuid);
  json.at("pool_uuid").get_to(record.pool_uuid);
  json.at("lv_uuid").get_to(record.lv_uuid);
  ReadNumber(json.at("device_id"), record.device_id);
  ReadNumber(json.at("transaction_id"), record.transaction_id);
  ReadNumber(json.at("creation_time"), record.creation_time);
  ReadNumber(json.at("snapshotted_time"), record.snapshotted_time);
  ReadNumber(json.at("mapped_blocks"), record.mapped_blocks);
  ReadNumber(json.at("pool_time"), record.pool_time);
  ReadNumber(json.at("pool_transaction_id"), record.pool_transaction_id);
  ReadNumber(json.at("data_block_sectors"), record.data_block_sectors);
  ReadNumber(json.at("device_size"), record.device_size);
  json.at("external_origin").get_to(record.external_origin);
  return record;
}

SavedBase SavedOf(const Json& json) {
  SavedBase saved;
  saved.mappings = IdOf(json.at("mappings"));
  json.at("lv_uuid").get_to(saved.witness.lv_uuid);
  ReadNumber(json.at("device_id"), saved.witness.device_id);
  ReadNumber(json.at("transaction_id"), saved.witness.transaction_id);
  ReadNumber(json.at("creation_time"), saved.witness.creation_time);
  return saved;
}

ReplicationState StateOf(const Json& json) {
  ReplicationState state;
  if (json.contains("base")) {
    const Json& base = json["base"];
    state.base =
        BaseState{IdOf(base.at("generation")), SnapshotOf(base.at("snapshot")),
                  RecordOf(base.at("record")), std::nullopt};
    if (base.contains("saved")) state.base->saved = SavedOf(base["saved"]);
  }
  if (json.contains("pending")) {
    const Json& pending = json["pending"];
    state.pending = PendingState{IdOf(pending.at("generation")),
                                 IdOf(pending.at("base")),
                                 pending.at("covers_all").get<bool>(),
                                 pending.value("method", ""),
                                 pending.value("kept_plan", false),
                                 SnapshotOf(pending.at("snapshot")),
                                 pending.at("identity").get<std::string>()};
  }
  if (json.contains("unneeded")) {
    for (const Json& snapshot : json["unneeded"]) {
      state.unneeded.push_back(SnapshotOf(snapshot));
    }
  }
  return state;
}

}  // namespace

ReplicationStore::ReplicationStore(FileLock lock, const std::string& folder)
    : lock_(std::move(lock)),
      folder_(folder),
      path_(folder + "/replication.state"),
      plan_path_(folder + "/hash.plan") {}

absl::StatusOr<ReplicationStore> ReplicationStore::Open(
    const std::string& state_directory, const std::string& replication,
    const std::string& destination) {
  // Any text may be a --uuid or a --dst: the folder's name is a hash of both.
  const Digest256 digest = Sha256()
                               .Update(replication.size())
                               .Update(replication)
                               .Update(destination)
                               .Finish();
  const std::string folder =
      state_directory + "/replications/" + Hex(std::span(digest).first<16>());
  SNAPSYNC_RETURN_IF_ERROR(MakeFolder(folder));
  SNAPSYNC_ASSIGN_OR_RETURN(FileLock lock, FileLock::Acquire(folder + "/lock"));
  return ReplicationStore(std::move(lock), folder);
}

absl::StatusOr<ReplicationState> ReplicationStore::Load() const {
  const absl::StatusOr<std::string> contents = ReadWholeFile(path_);
  if (absl::IsNotFound(contents.status())) return ReplicationState{};
  if (!contents.ok()) return contents.status();
  SNAPSYNC_ASSIGN_OR_RETURN(
      const std::string body,
      DecodeState(kKind, kStateVersion, path_, *contents));
  try {
    return StateOf(Json::parse(body));
  } catch (const Json::exception& error) {
    return Error(Reason::kIo, path_ + ": " + error.what());
  }
}

absl::Status ReplicationStore::Save(const ReplicationState& state) const {
  Json json = Json::object();
  if (state.base) {
    json["base"] = {{"generation", state.base->generation.ToString()},
                    {"snapshot", ToJson(state.base->snapshot)},
                    {"record", ToJson(state.base->record)}};
    if (state.base->saved) json["base"]["saved"] = ToJson(*state.base->saved);
  }
  if (state.pending) {
    json["pending"] = {{"generation", state.pending->generation.ToString()},
                       {"base", state.pending->base.ToString()},
                       {"covers_all", state.pending->covers_all},
                       {"method", state.pending->method},
                       {"kept_plan", state.pending->kept_plan},
                       {"snapshot", ToJson(state.pending->snapshot)},
                       {"identity", state.pending->identity}};
  }
  for (const SnapshotName& snapshot : state.unneeded) {
    json["unneeded"].push_back(ToJson(snapshot));
  }
  return WriteFileAtomically(
      path_,
      EncodeState(
          kKind, kStateVersion,
          json.dump(2, ' ', true, Json::error_handler_t::replace) + "\n"));
}

absl::StatusOr<SavedPlan> ReplicationStore::LoadPlan() const {
  const absl::StatusOr<std::string> contents =
      ReadWholeFile(plan_path_, kMaxPlanBytes);
  absl::StatusOr<SavedPlan> saved =
      contents.ok() ? DecodePlan(plan_path_, *contents) : contents.status();
  if (saved.ok()) return saved;
  return Error(Reason::kBaseMismatch,
               "the plan of the interrupted sync: " +
                   std::string(MessageOf(saved.status())));
}

absl::Status ReplicationStore::SavePlan(const SavedPlan& saved) const {
  return WriteFileAtomically(plan_path_, EncodePlan(saved));
}

absl::Status ReplicationStore::RemovePlan() const {
  return RemoveFile(plan_path_);
}

std::string ReplicationStore::MappingsPath(const Id128& id) const {
  return folder_ + "/" + kMappingsPrefix + id.ToString();
}

absl::Status ReplicationStore::RemoveOtherMappings(
    const ReplicationState& state) const {
  std::string kept;
  if (state.base && state.base->saved) {
    kept = MappingsPath(state.base->saved->mappings);
  }
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator(folder_, error)) {
    const std::string path = entry.path().string();
    if (path == kept ||
        !entry.path().filename().string().starts_with(kMappingsPrefix)) {
      continue;
    }
    SNAPSYNC_RETURN_IF_ERROR(RemoveFile(path));
  }
  if (!error) return absl::OkStatus();
  return PosixError(error.value(), folder_ + ": can't be listed");
}

std::string ReplicationStore::name() const {
  return folder_.substr(folder_.rfind('/') + 1);
}

}  // namespace snapsync
