// SPDX-License-Identifier: Apache-2.0
//
// The part of a replica that keeps the manifest of its newest generation, and
// compares the target with it.
#include <algorithm>
#include <utility>

#include "agent/manifest_log.h"
#include "agent/replica.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace snapsync {
std::unique_ptr<ManifestLog> Replica::OpenManifestLog(
    const SessionRecord& session, uint64_t watermark) {
  if (!options_.manifest) return nullptr;
  const auto open = [&]() -> absl::StatusOr<std::unique_ptr<ManifestLog>> {
    SNAPSYNC_ASSIGN_OR_RETURN(const SessionStore::ManifestPlace place,
                              store_->OpenManifestPlace(options_.volume));
    if (place.folder == nullptr) return nullptr;
    return ManifestLog::Open(*place.folder, place.log, session.id, watermark);
  };
  absl::StatusOr<std::unique_ptr<ManifestLog>> log = open();
  if (log.ok()) return *std::move(log);
  Log(Severity::kWarning, "volume " + options_.volume +
                              ": no manifest is kept of this session: " +
                              std::string(MessageOf(log.status())));
  return nullptr;
}

void Replica::KeepManifest(const SessionRecord& session) {
  const auto keep = [&]() -> absl::Status {
    SNAPSYNC_ASSIGN_OR_RETURN(const SessionStore::ManifestPlace place,
                              store_->OpenManifestPlace(options_.volume));
    if (place.folder == nullptr) return absl::OkStatus();
    const absl::StatusOr<bool> applied =
        UpdateManifest(*place.folder, place.manifest, place.log, session);
    if (applied.ok() && *applied) return absl::OkStatus();
    // It names this generation, but may not be of it. The record is saved next,
    // in the same folder, which makes this durable.
    SNAPSYNC_RETURN_IF_ERROR(place.folder->Remove(place.manifest));
    return applied.status();
  };
  if (const absl::Status status = keep(); !status.ok()) {
    Log(Severity::kWarning, "volume " + options_.volume +
                                ": no manifest is kept of this generation: " +
                                std::string(MessageOf(status)));
  }
}

void Replica::RemoveManifestLog() {
  const auto place = store_->OpenManifestPlace(options_.volume);
  if (place.ok() && place->folder != nullptr) {
    place->folder->Remove(place->log)
        .IgnoreError();  // the next one replaces it
  }
}

absl::Status Replica::ForgetManifest() {
  MutexLock lock(&mutex_);
  SNAPSYNC_ASSIGN_OR_RETURN(const SessionStore::ManifestPlace place,
                            store_->OpenManifestPlace(options_.volume));
  if (place.folder == nullptr) return absl::OkStatus();
  SNAPSYNC_RETURN_IF_ERROR(place.folder->Remove(place.manifest));
  return place.folder->Flush();
}

absl::StatusOr<std::unique_ptr<Manifest>> Replica::ManifestOf(
    const GenerationRecord& generation, ScrubProgress& progress) {
  SNAPSYNC_ASSIGN_OR_RETURN(const SessionStore::ManifestPlace place,
                            store_->OpenManifestPlace(options_.volume));
  if (place.folder == nullptr || !options_.manifest) {
    return Error(Reason::kTargetUnsuitable,
                 "volume " + options_.volume +
                     ": no manifests are kept (manifests = false)");
  }
  const Manifest::Head head{generation.generation, generation.source_size};
  absl::StatusOr<std::unique_ptr<Manifest>> manifest =
      Manifest::Open(*place.folder, place.manifest);
  if (manifest.ok() && *manifest != nullptr && (*manifest)->head() == head) {
    return manifest;
  }
  if (ReasonOf(manifest.status()) == Reason::kVerification) {
    ++progress.damaged_manifest;
    Log(Severity::kError, "volume " + options_.volume + ": " +
                              std::string(MessageOf(manifest.status())) +
                              "; a new one is made");
  } else if (!manifest.ok()) {
    return manifest;
  }
  return Manifest::Create(*place.folder, place.manifest, head, kUnknownCell);
}

absl::Status Replica::ScrubStep(uint64_t bytes, ScrubProgress& progress) {
  MutexLock lock(&mutex_);
  SNAPSYNC_ASSIGN_OR_RETURN(TargetRecord record, LoadRecord());
  if (record.state == TargetState::kCommitting) {
    SNAPSYNC_RETURN_IF_ERROR(FinishCommit(record).status());
    SNAPSYNC_ASSIGN_OR_RETURN(record, LoadRecord());
  }
  if (record.generation.none() || record.state == TargetState::kTorn ||
      record.generations.empty()) {
    return Error(Reason::kTargetUnsuitable,
                 "volume " + options_.volume + " is " +
                     std::string(NameOf(record.state)) +
                     ": it holds no whole generation that could be compared");
  }
  const GenerationRecord& generation = record.generations.back();
  progress.generation = {generation.generation, generation.number};
  progress.size = generation.source_size;
  if (progress.next >= progress.size) {
    progress.next = progress.size;
    return absl::OkStatus();
  }
  SNAPSYNC_ASSIGN_OR_RETURN(
      const std::unique_ptr<BlockReader> reader,
      target_->OpenGeneration(generation.number, record.seal));
  if (reader->size() < progress.size) {
    return Error(Reason::kIo,
                 reader->name() + " has " + std::to_string(reader->size()) +
                     " bytes, the generation " + std::to_string(progress.size));
  }
  SNAPSYNC_ASSIGN_OR_RETURN(const std::unique_ptr<Manifest> manifest,
                            ManifestOf(generation, progress));
  const uint64_t first = progress.next / kCellBytes;
  const uint64_t end = std::min(CellsOf(progress.size), first + CellsOf(bytes));
  SNAPSYNC_RETURN_IF_ERROR(
      ScrubCells(*reader, *manifest, first, end, progress));
  progress.next = std::min(progress.size, end * kCellBytes);
  return manifest->Flush();
}

}  // namespace snapsync
