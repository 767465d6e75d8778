// SPDX-License-Identifier: Apache-2.0
#include "agent/targets/qcow2_shadow.h"

#include <limits>
#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/qcow2/committed_image.h"
#include "common/qcow2/format.h"
#include "common/qcow2/image_update.h"
#include "common/qcow2/table_writer.h"

namespace snapsync {
namespace {

absl::Status Changed(const std::string& path, const Id128& expected) {
  return Error(Reason::kBaseMismatch, path + " is no longer generation " +
                                          expected.ToString() +
                                          "; run a full export");
}

}  // namespace

absl::Status CheckCompression(const Qcow2Options& options,
                              uint8_t compression_type,
                              const std::string& path) {
  using Compression = Qcow2Options::Compression;
  const bool is_zstd = compression_type == qcow2::kCompressionZstd;
  if (options.compression == Compression::kNone ||
      (options.compression == Compression::kZstd) == is_zstd) {
    return absl::OkStatus();
  }
  return Error(Reason::kBaseMismatch,
               path + " was exported " +
                   (is_zstd ? "with zstd, which can't be mixed with zlib"
                            : "without zstd, which can't be added") +
                   "; keep the compression, or run a full export");
}

absl::Status Qcow2Shadow::Create(const Id128& stage, uint64_t size) {
  SNAPSYNC_ASSIGN_OR_RETURN(const auto file,
                            folder_.Open(name_, HostFolder::Access::kRead));
  if (file == nullptr) return NoStage(folder_.path() + name_);
  qcow2::StageHead head;
  head.stage = stage;
  SNAPSYNC_ASSIGN_OR_RETURN(head.base_bytes, file->Size());
  SNAPSYNC_ASSIGN_OR_RETURN(const qcow2::ExportHeader header,
                            qcow2::ReadExportHeader(*file));
  head.geometry = header.geometry;
  head.base_clusters = header.geometry.ClustersOf(head.base_bytes);
  SNAPSYNC_RETURN_IF_ERROR(
      CheckCompression(options_, header.compression_type, file->name()));
  // Finds what an update would stumble over before anything is written.
  SNAPSYNC_ASSIGN_OR_RETURN(
      const qcow2::CommittedImage image,
      qcow2::ReadCommittedImage(*file, head.base_clusters));
  SNAPSYNC_ASSIGN_OR_RETURN(head.size,
                            VirtualSizeOf(options_, header.geometry, size));
  SNAPSYNC_RETURN_IF_ERROR(
      qcow2::BeginUpdate(*file, image, head.size, head.base_clusters).status());
  head.base = header.identity.generation;
  head.compression = static_cast<uint32_t>(options_.compression);
  SNAPSYNC_ASSIGN_OR_RETURN(auto journal, folder_.Create(journal_name_));
  SNAPSYNC_RETURN_IF_ERROR(
      qcow2::StageJournal::Create(std::move(journal), head).status());
  return folder_.Flush();
}

absl::StatusOr<std::optional<Id128>> Qcow2Shadow::Find() {
  SNAPSYNC_ASSIGN_OR_RETURN(const auto head,
                            LookAtJournal(folder_, journal_name_));
  if (!head.has_value()) return std::optional<Id128>();
  return std::optional<Id128>(head->stage);
}

absl::StatusOr<std::shared_ptr<Qcow2Stage>> Qcow2Shadow::OpenWith(
    const Id128& stage, Others others, qcow2::CommittedImage& image) {
  SNAPSYNC_ASSIGN_OR_RETURN(auto journal,
                            OpenJournal(folder_, journal_name_, stage));
  SNAPSYNC_ASSIGN_OR_RETURN(auto file,
                            folder_.Open(name_, HostFolder::Access::kWrite));
  if (file == nullptr) return NoStage(folder_.path() + name_);
  auto opened = std::make_shared<Qcow2Stage>();
  // Before it is read: nobody changes it any more.
  auto lock =
      others == Others::kMayRead
          ? qcow2::ImageLock::ForReading(file->descriptor(), file->name())
          : qcow2::ImageLock::ForWriting(file->descriptor(), file->name());
  if (!lock.ok()) return lock.status();
  opened->lock.emplace(*std::move(lock));
  const qcow2::StageHead head = journal->head();
  SNAPSYNC_ASSIGN_OR_RETURN(const qcow2::ExportHeader header,
                            qcow2::ReadExportHeader(*file));
  if (header.identity.generation != head.base ||
      header.geometry != head.geometry) {
    return Changed(file->name(), head.base);
  }
  SNAPSYNC_ASSIGN_OR_RETURN(
      image, qcow2::ReadCommittedImage(*file, head.base_clusters));
  SNAPSYNC_ASSIGN_OR_RETURN(
      auto base,
      qcow2::BeginUpdate(*file, image, head.size, head.base_clusters));
  SNAPSYNC_ASSIGN_OR_RETURN(
      opened->writer,
      qcow2::ImageWriter::Open(
          StoreOptionsOf(options_, head, image.header.compression_type,
                         nullptr),
          head.size, std::move(base), std::move(file), std::move(journal)));
  return opened;
}

absl::StatusOr<std::shared_ptr<Qcow2Stage>> Qcow2Shadow::Open(
    const Id128& stage) {
  qcow2::CommittedImage image;
  return OpenWith(stage, Others::kMayRead, image);
}

absl::Status Qcow2Shadow::Finish(const Id128& stage,
                                 const qcow2::Identity& identity) {
  qcow2::CommittedImage image;
  SNAPSYNC_ASSIGN_OR_RETURN(const auto opened,
                            OpenWith(stage, Others::kMayNot, image));
  qcow2::ExportHeader header = image.header;
  header.size = opened->writer->size();
  header.identity = identity;
  header.identity.replication = image.header.identity.replication;
  header.identity.previous = image.header.identity.generation;
  SNAPSYNC_RETURN_IF_ERROR(
      opened->writer->Finish([&](qcow2::ClusterStore& store) {
        return qcow2::FinishUpdate(store, image, header);
      }));
  return RemoveJournal();
}

absl::Status Qcow2Shadow::CleanUp() {
  SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<Id128> stage, Find());
  if (!stage.has_value()) return RemoveJournal();
  SNAPSYNC_ASSIGN_OR_RETURN(const auto file,
                            folder_.Open(name_, HostFolder::Access::kWrite));
  if (file == nullptr) return RemoveJournal();
  // The sector may have been read from a cache that was never written; all that
  // it speaks of was durable before.
  SNAPSYNC_ASSIGN_OR_RETURN(const qcow2::ExportHeader header,
                            qcow2::ReadExportHeader(*file));
  SNAPSYNC_RETURN_IF_ERROR(qcow2::SwitchHeader(*file, header));
  SNAPSYNC_RETURN_IF_ERROR(
      qcow2::GiveBackUnused(*file, std::numeric_limits<uint64_t>::max()));
  return RemoveJournal();
}

absl::Status Qcow2Shadow::Remove() {
  SNAPSYNC_ASSIGN_OR_RETURN(const auto head,
                            LookAtJournal(folder_, journal_name_));
  if (!head.has_value()) return RemoveJournal();
  SNAPSYNC_ASSIGN_OR_RETURN(const auto file,
                            folder_.Open(name_, HostFolder::Access::kWrite));
  if (file == nullptr) return RemoveJournal();
  auto lock = qcow2::ImageLock::ForReading(file->descriptor(), file->name());
  const auto header = lock.ok()
                          ? qcow2::ReadExportHeader(*file)
                          : absl::StatusOr<qcow2::ExportHeader>(lock.status());
  // What somebody else wrote to since is left alone: it is theirs now.
  if (header.ok()) {
    const bool is_base = header->identity.generation == head->base;
    SNAPSYNC_RETURN_IF_ERROR(qcow2::GiveBackUnused(
        *file,
        is_base ? head->base_bytes : std::numeric_limits<uint64_t>::max()));
  } else if (ReasonOf(header.status()) != Reason::kBaseMismatch &&
             ReasonOf(header.status()) != Reason::kBusy) {
    return header.status();
  }
  return RemoveJournal();
}

absl::Status Qcow2Shadow::RemoveJournal() {
  SNAPSYNC_ASSIGN_OR_RETURN(
      const auto journal,
      folder_.Open(journal_name_, HostFolder::Access::kRead));
  if (journal == nullptr) return absl::OkStatus();
  SNAPSYNC_RETURN_IF_ERROR(folder_.Remove(journal_name_));
  return folder_.Flush();
}

}  // namespace snapsync
