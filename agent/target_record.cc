// SPDX-License-Identifier: Apache-2.0
#include "agent/target_record.h"

#include <array>

#include "common/base/error.h"
#include "common/base/state_file.h"
#include "common/base/state_json.h"
#include "common/base/status_macros.h"

namespace snapsync {
namespace {

using Json = nlohmann::json;

constexpr char kKind[] = "target";
constexpr int kRecordVersion = 1;

constexpr std::array<TargetState, 5> kStates = {
    TargetState::kEmpty, TargetState::kAt, TargetState::kFilling,
    TargetState::kTorn, TargetState::kCommitting};

Json ToJson(const ExportOptions& image) {
  return {{"virtual_size", image.virtual_size},
          {"cluster_size", image.cluster_size},
          {"compression", image.compression},
          {"chain", image.chain},
          {"keep", image.keep}};
}

Json ToJson(const SessionRecord& session) {
  return {{"id", session.id.ToString()},
          {"base", session.base.ToString()},
          {"generation", session.generation.ToString()},
          {"replication", session.replication},
          {"source", session.source},
          {"owner", session.owner},
          {"source_size", session.source_size},
          {"plan_digest", Hex(session.plan_digest)},
          {"chunk_count", session.chunk_count},
          {"image", ToJson(session.image)},
          {"verified", session.verified},
          {"stage", session.stage}};
}

Json ToJson(const GenerationRecord& generation) {
  return {{"generation", generation.generation.ToString()},
          {"number", generation.number},
          {"source_size", generation.source_size},
          {"plan_digest", Hex(generation.plan_digest)},
          {"committed", generation.committed_unix_seconds},
          {"verified", generation.verified}};
}

// These throw Json::exception, caught in DecodeTargetRecord.
Digest256 DigestOf(const Json& value) {
  Digest256 digest;
  if (!FromHex(value.get<std::string>(), digest)) {
    throw Json::other_error::create(500, "not a digest", &value);
  }
  return digest;
}

TargetState StateOf(const Json& value) {
  const auto text = value.get<std::string>();
  for (const TargetState state : kStates) {
    if (text == NameOf(state)) return state;
  }
  throw Json::other_error::create(500, "not a state", &value);
}

ExportOptions ImageOf(const Json& record) {
  ExportOptions image;
  if (!record.contains("image")) return image;
  const Json& json = record["image"];
  ReadNumber(json.at("virtual_size"), image.virtual_size);
  ReadNumber(json.at("cluster_size"), image.cluster_size);
  image.compression = json.at("compression").get<std::string>();
  image.chain = json.at("chain").get<bool>();
  ReadNumber(json.at("keep"), image.keep);
  return image;
}

GenerationRecord GenerationOf(const Json& json) {
  GenerationRecord generation;
  generation.generation = IdOf(json.at("generation"));
  ReadNumber(json.at("number"), generation.number);
  ReadNumber(json.at("source_size"), generation.source_size);
  generation.plan_digest = DigestOf(json.at("plan_digest"));
  ReadNumber(json.at("committed"), generation.committed_unix_seconds);
  generation.verified = json.value("verified", false);
  return generation;
}

SessionRecord SessionOf(const Json& json) {
  SessionRecord session;
  session.id = IdOf(json.at("id"));
  session.base = IdOf(json.at("base"));
  session.generation = IdOf(json.at("generation"));
  session.replication = json.at("replication").get<std::string>();
  session.source = json.at("source").get<std::string>();
  session.owner = json.at("owner").get<std::string>();
  ReadNumber(json.at("source_size"), session.source_size);
  session.plan_digest = DigestOf(json.at("plan_digest"));
  ReadNumber(json.at("chunk_count"), session.chunk_count);
  session.image = ImageOf(json);
  session.verified = json.value("verified", false);
  session.stage = json.at("stage").get<std::string>();
  return session;
}

}  // namespace

std::string_view NameOf(TargetState state) {
  switch (state) {
    case TargetState::kEmpty:
      return "empty";
    case TargetState::kAt:
      return "at";
    case TargetState::kFilling:
      return "filling";
    case TargetState::kTorn:
      return "torn";
    case TargetState::kCommitting:
      return "committing";
  }
  return "?";
}

std::string EncodeTargetRecord(const TargetRecord& record) {
  Json json = {{"identity", record.identity},
               {"state", NameOf(record.state)},
               {"replication", record.replication},
               {"generation", record.generation.ToString()},
               {"number", record.number},
               {"seal", record.seal},
               {"generations", Json::array()}};
  if (record.promoted) json["promoted"] = true;
  if (record.image.given()) json["image"] = ToJson(record.image);
  if (record.session) json["session"] = ToJson(*record.session);
  for (const GenerationRecord& generation : record.generations) {
    json["generations"].push_back(ToJson(generation));
  }
  return EncodeState(
      kKind, kRecordVersion,
      json.dump(2, ' ', true, Json::error_handler_t::replace) + "\n");
}

absl::StatusOr<TargetRecord> DecodeTargetRecord(const std::string& path,
                                                std::string_view contents) {
  SNAPSYNC_ASSIGN_OR_RETURN(const std::string body,
                            DecodeState(kKind, kRecordVersion, path, contents));
  try {
    const Json json = Json::parse(body);
    TargetRecord record;
    record.identity = json.at("identity").get<std::string>();
    record.state = StateOf(json.at("state"));
    record.replication = json.at("replication").get<std::string>();
    record.generation = IdOf(json.at("generation"));
    ReadNumber(json.at("number"), record.number);
    record.seal = json.at("seal").get<std::string>();
    record.promoted = json.value("promoted", false);
    record.image = ImageOf(json);
    if (json.contains("session")) record.session = SessionOf(json["session"]);
    for (const Json& item : json.at("generations")) {
      record.generations.push_back(GenerationOf(item));
    }
    const bool filling = record.state == TargetState::kFilling ||
                         record.state == TargetState::kTorn ||
                         record.state == TargetState::kCommitting;
    if (filling != record.session.has_value()) {
      return Error(Reason::kIo, path + ": state \"" +
                                    std::string(NameOf(record.state)) +
                                    "\" and field \"session\" contradict");
    }
    return record;
  } catch (const Json::exception& error) {
    return Error(Reason::kIo, path + ": " + error.what());
  }
}

}  // namespace snapsync
