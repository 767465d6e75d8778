// SPDX-License-Identifier: Apache-2.0
#include "agent/targets/qcow2_part.h"

#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/qcow2/committed_image.h"
#include "common/qcow2/new_image.h"
#include "common/qcow2/table_writer.h"

namespace snapsync {

absl::Status Qcow2Part::Create(const qcow2::ExportHeader& guard) {
  SNAPSYNC_ASSIGN_OR_RETURN(const auto file, folder_.Create(part_name_));
  SNAPSYNC_RETURN_IF_ERROR(qcow2::BeginNewImage(*file, guard));
  qcow2::StageHead head;
  head.stage = guard.identity.generation;
  head.size = guard.size;
  head.geometry = guard.geometry;
  head.compression = static_cast<uint32_t>(options_.compression);
  SNAPSYNC_ASSIGN_OR_RETURN(auto journal, folder_.Create(journal_name_));
  SNAPSYNC_RETURN_IF_ERROR(
      qcow2::StageJournal::Create(std::move(journal), head).status());
  return folder_.Flush();
}

absl::StatusOr<std::optional<Id128>> Qcow2Part::Find() {
  SNAPSYNC_ASSIGN_OR_RETURN(const auto head,
                            LookAtJournal(folder_, journal_name_));
  SNAPSYNC_ASSIGN_OR_RETURN(
      const auto file, folder_.Open(part_name_, HostFolder::Access::kRead));
  if (!head.has_value() || file == nullptr) return std::optional<Id128>();
  const auto header = qcow2::ReadExportHeader(*file);
  if (!header.ok()) {
    if (ReasonOf(header.status()) != Reason::kBaseMismatch) {
      return header.status();
    }
    return std::optional<Id128>();
  }
  // Once it is whole it has the generation's name there.
  if (header->incomplete && header->identity.generation != head->stage) {
    return std::optional<Id128>();
  }
  return std::optional<Id128>(head->stage);
}

absl::StatusOr<std::unique_ptr<GrowingFile>> Qcow2Part::OpenFile(
    const Id128& stage, qcow2::ExportHeader& header) {
  SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<Id128> found, Find());
  if (found != stage) return NoStage(folder_.path() + part_name_);
  SNAPSYNC_ASSIGN_OR_RETURN(
      auto file, folder_.Open(part_name_, HostFolder::Access::kWrite));
  if (file == nullptr) return NoStage(folder_.path() + part_name_);
  SNAPSYNC_ASSIGN_OR_RETURN(header, qcow2::ReadExportHeader(*file));
  return file;
}

absl::StatusOr<std::shared_ptr<Qcow2Stage>> Qcow2Part::Open(
    const Id128& stage, std::unique_ptr<BlockReader> backing) {
  SNAPSYNC_ASSIGN_OR_RETURN(auto journal,
                            OpenJournal(folder_, journal_name_, stage));
  qcow2::ExportHeader header;
  SNAPSYNC_ASSIGN_OR_RETURN(auto file, OpenFile(stage, header));
  // A commit may have been put off when the file was whole; and if not, what is
  // read may come from a cache that was never written.
  qcow2::ExportHeader guard = header;
  guard.incomplete = true;
  guard.l1_entries = guard.refcount_table_clusters = 0;
  guard.l1_offset = guard.refcount_table_offset = 0;
  guard.identity = qcow2::Identity();
  guard.identity.replication = header.identity.replication;
  guard.identity.generation = stage;
  SNAPSYNC_RETURN_IF_ERROR(qcow2::BeginNewImage(*file, guard));
  auto opened = std::make_shared<Qcow2Stage>();
  opened->backing = std::move(backing);
  const qcow2::StageHead head = journal->head();
  SNAPSYNC_ASSIGN_OR_RETURN(
      opened->writer,
      qcow2::ImageWriter::Open(
          StoreOptionsOf(options_, head, header.compression_type,
                         opened->backing.get()),
          head.size, qcow2::ImageWriter::NewFile(head.geometry, head.size),
          std::move(file), std::move(journal)));
  return opened;
}

absl::Status Qcow2Part::Finish(const Id128& stage,
                               const qcow2::Identity& identity,
                               std::unique_ptr<BlockReader> backing,
                               GrowingFile* old) {
  qcow2::ExportHeader header;
  {
    SNAPSYNC_ASSIGN_OR_RETURN(const auto file, OpenFile(stage, header));
    if (!header.incomplete &&
        header.identity.generation == identity.generation &&
        header.identity.number == identity.number) {
      // Whole since an earlier call, which may not have come to make this one
      // sector durable; all else was before it was written.
      SNAPSYNC_RETURN_IF_ERROR(qcow2::SwitchHeader(*file, header));
      return old == nullptr ? absl::OkStatus() : file->TakeOwnerOf(*old);
    }
    if (old != nullptr) SNAPSYNC_RETURN_IF_ERROR(file->TakeOwnerOf(*old));
  }
  SNAPSYNC_ASSIGN_OR_RETURN(const auto opened, Open(stage, std::move(backing)));
  // The name as the guard has it: what follows it does not move.
  const std::string replication = header.identity.replication;
  header.identity = identity;
  header.identity.replication = replication;
  return opened->writer->Finish([&](qcow2::ClusterStore& store) {
    return qcow2::FinishNewImage(store, header);
  });
}

absl::Status Qcow2Part::Remove() {
  // Nothing is removed before both are known to be ours.
  SNAPSYNC_ASSIGN_OR_RETURN(
      const auto journal,
      folder_.Open(journal_name_, HostFolder::Access::kRead));
  SNAPSYNC_RETURN_IF_ERROR(LookAtJournal(folder_, journal_name_).status());
  SNAPSYNC_ASSIGN_OR_RETURN(
      const auto file, folder_.Open(part_name_, HostFolder::Access::kRead));
  if (file == nullptr && journal == nullptr) return absl::OkStatus();
  if (file != nullptr) {
    SNAPSYNC_ASSIGN_OR_RETURN(const uint64_t bytes, file->Size());
    // Until the header is durable nothing follows it.
    if (bytes > qcow2::kHeaderAreaBytes &&
        !qcow2::ReadExportHeader(*file).ok()) {
      return Error(Reason::kTargetUnsuitable,
                   file->name() +
                       " is in the way, and not ours; move it somewhere else");
    }
    SNAPSYNC_RETURN_IF_ERROR(folder_.Remove(part_name_));
  }
  SNAPSYNC_RETURN_IF_ERROR(folder_.Remove(journal_name_));
  return folder_.Flush();
}

absl::Status Qcow2Part::RemoveJournal() {
  SNAPSYNC_ASSIGN_OR_RETURN(
      const auto journal,
      folder_.Open(journal_name_, HostFolder::Access::kRead));
  if (journal == nullptr) return absl::OkStatus();
  SNAPSYNC_RETURN_IF_ERROR(LookAtJournal(folder_, journal_name_).status());
  SNAPSYNC_RETURN_IF_ERROR(folder_.Remove(journal_name_));
  return folder_.Flush();
}

}  // namespace snapsync
