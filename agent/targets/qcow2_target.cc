// SPDX-License-Identifier: Apache-2.0
#include "agent/targets/qcow2_target.h"

#include <unistd.h>

#include <cerrno>
#include <memory>
#include <optional>
#include <utility>

#include "agent/targets/named_values.h"
#include "agent/targets/qcow2_chain_target.h"
#include "agent/targets/qcow2_export.h"
#include "agent/targets/qcow2_part.h"
#include "agent/targets/qcow2_shadow.h"
#include "agent/targets/qcow2_stage.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/qcow2/image.h"

namespace snapsync {
namespace {

constexpr char kNewFile[] = "new";
constexpr char kSameFile[] = "same";

// One file, which is always the newest generation.
class Qcow2FileTarget final : public Target {
 public:
  Qcow2FileTarget(const std::string& path, Qcow2Options options,
                  FolderOpener open_folder)
      : options_(std::move(options)),
        place_(path, std::move(open_folder)),
        name_(place_.name()) {}

  bool in_place() const override { return false; }

  absl::StatusOr<TargetFacts> Inspect() override {
    SNAPSYNC_ASSIGN_OR_RETURN(const auto folder, place_.Open());
    return InspectExport(place_, *folder, name_);
  }

  absl::Status CheckSeal(const std::string& seal) override {
    SNAPSYNC_ASSIGN_OR_RETURN(const auto folder, place_.Open());
    SNAPSYNC_ASSIGN_OR_RETURN(const qcow2::ExportHeader header,
                              ReadExport(*folder, name_, options_));
    return CheckExportSeal(seal, header, folder->path() + name_);
  }

  absl::StatusOr<std::unique_ptr<BlockReader>> OpenReader() override {
    SNAPSYNC_ASSIGN_OR_RETURN(const auto folder, place_.Open());
    return OpenExport(*folder, name_, options_);
  }

  absl::StatusOr<std::string> CreateStage(uint64_t size,
                                          bool from_base) override {
    Retire();
    SNAPSYNC_ASSIGN_OR_RETURN(const auto folder, place_.Open());
    const Id128 stage = Id128::Random();
    Qcow2Part part(&options_, folder.get(), name_);
    Qcow2Shadow shadow(&options_, folder.get(), name_);
    // Whatever is there is refused before anything is touched.
    SNAPSYNC_ASSIGN_OR_RETURN(const auto file,
                              folder->Open(name_, HostFolder::Access::kRead));
    SNAPSYNC_ASSIGN_OR_RETURN(const qcow2::ExportHeader guard,
                              MakeGuardHeader(options_, size, stage));
    if (from_base) {
      SNAPSYNC_RETURN_IF_ERROR(ReadExport(*folder, name_, options_).status());
    }
    SNAPSYNC_RETURN_IF_ERROR(part.Remove());
    SNAPSYNC_RETURN_IF_ERROR(shadow.Remove());
    SNAPSYNC_RETURN_IF_ERROR(from_base ? shadow.Create(stage, size)
                                       : part.Create(guard));
    return NamedValues(kQcow2StageKind)
        .Set("id", stage.ToString())
        .Set("file", from_base ? kSameFile : kNewFile)
        .ToString();
  }

  absl::StatusOr<std::unique_ptr<BlockWriter>> OpenStage(
      const std::string& token) override {
    Retire();
    SNAPSYNC_ASSIGN_OR_RETURN(const StageToken stage, ParseToken(token));
    SNAPSYNC_ASSIGN_OR_RETURN(const auto folder, place_.Open());
    auto opened =
        stage.same_file
            ? Qcow2Shadow(&options_, folder.get(), name_).Open(stage.id)
            : Qcow2Part(&options_, folder.get(), name_).Open(stage.id, nullptr);
    if (!opened.ok()) return opened.status();
    live_ = *opened;
    return ShareStage(*std::move(opened));
  }

  absl::StatusOr<std::string> Commit(const std::string& token, uint64_t number,
                                     const Id128& generation,
                                     const std::string& base_seal) override {
    Retire();
    SNAPSYNC_ASSIGN_OR_RETURN(const StageToken stage, ParseToken(token));
    SNAPSYNC_ASSIGN_OR_RETURN(const auto folder, place_.Open());
    SNAPSYNC_RETURN_IF_ERROR(
        stage.same_file
            ? CommitSameFile(*folder, stage.id, number, generation, base_seal)
            : CommitNewFile(*folder, stage.id, number, generation, base_seal));
    SNAPSYNC_ASSIGN_OR_RETURN(const qcow2::ExportHeader header,
                              ReadExport(*folder, name_, options_));
    return MakeExportSeal(header);
  }

  absl::Status RemoveStage(const std::string& token) override {
    Retire();
    SNAPSYNC_ASSIGN_OR_RETURN(const auto folder, place_.Open());
    Qcow2Part part(&options_, folder.get(), name_);
    Qcow2Shadow shadow(&options_, folder.get(), name_);
    if (token.empty()) {
      SNAPSYNC_RETURN_IF_ERROR(part.Remove());
      return shadow.Remove();
    }
    SNAPSYNC_ASSIGN_OR_RETURN(const StageToken stage, ParseToken(token));
    SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<Id128> found,
                              stage.same_file ? shadow.Find() : part.Find());
    if (found != stage.id) return absl::OkStatus();
    return stage.same_file ? shadow.Remove() : part.Remove();
  }

  absl::Status Prune(uint64_t /*number*/, uint64_t /*keep*/) override {
    return absl::OkStatus();
  }

 private:
  struct StageToken {
    Id128 id;
    bool same_file = false;
  };

  static absl::StatusOr<StageToken> ParseToken(const std::string& token) {
    SNAPSYNC_ASSIGN_OR_RETURN(const NamedValues values,
                              NamedValues::Parse(kQcow2StageKind, token));
    const std::optional<Id128> id = Id128::Parse(values.Text("id"));
    const std::string file = values.Text("file");
    if (!id.has_value() || (file != kNewFile && file != kSameFile)) {
      return Error(Reason::kBaseMismatch, "\"" + token + "\" names no stage");
    }
    return StageToken{*id, file == kSameFile};
  }

  absl::Status CommitNewFile(HostFolder& folder, const Id128& stage,
                             uint64_t number, const Id128& generation,
                             const std::string& base_seal) {
    Qcow2Part part(&options_, &folder, name_);
    SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<Id128> found, part.Find());
    if (found != stage) {
      SNAPSYNC_RETURN_IF_ERROR(
          CheckIsGeneration(folder, name_, options_, number, generation));
      SNAPSYNC_RETURN_IF_ERROR(folder.Flush());
      return part.RemoveJournal();
    }
    SNAPSYNC_ASSIGN_OR_RETURN(const auto old,
                              folder.Open(name_, HostFolder::Access::kRead));
    std::optional<qcow2::ImageLock> lock;
    if (!base_seal.empty()) {
      SNAPSYNC_RETURN_IF_ERROR(CheckSeal(base_seal));
    }
    if (old != nullptr) {
      SNAPSYNC_RETURN_IF_ERROR(CheckNotOpen(*old));
      SNAPSYNC_ASSIGN_OR_RETURN(
          auto taken,
          qcow2::ImageLock::ForWriting(old->descriptor(), old->name()));
      lock.emplace(std::move(taken));
    }
    SNAPSYNC_RETURN_IF_ERROR(
        part.Finish(stage, IdentityOf(options_, number, generation, Id128()),
                    nullptr, old.get()));
    if (old != nullptr) SNAPSYNC_RETURN_IF_ERROR(CheckNotOpen(*old));
    SNAPSYNC_RETURN_IF_ERROR(
        folder.Rename(part.name(), name_,
                      old == nullptr ? HostFolder::IfThere::kRefuse
                                     : HostFolder::IfThere::kReplace));
    SNAPSYNC_RETURN_IF_ERROR(folder.Flush());
    return part.RemoveJournal();
  }

  absl::Status CommitSameFile(HostFolder& folder, const Id128& stage,
                              uint64_t number, const Id128& generation,
                              const std::string& base_seal) {
    Qcow2Shadow shadow(&options_, &folder, name_);
    if (CheckIsGeneration(folder, name_, options_, number, generation).ok()) {
      return shadow.CleanUp();
    }
    SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<Id128> found, shadow.Find());
    if (found != stage) return NoStage(folder.path() + name_);
    if (!base_seal.empty()) {
      SNAPSYNC_RETURN_IF_ERROR(CheckSeal(base_seal));
    }
    SNAPSYNC_ASSIGN_OR_RETURN(const auto file,
                              folder.Open(name_, HostFolder::Access::kRead));
    if (file == nullptr) return NoStage(folder.path() + name_);
    SNAPSYNC_RETURN_IF_ERROR(CheckNotOpen(*file));
    return shadow.Finish(stage,
                         IdentityOf(options_, number, generation, Id128()));
  }

  // A writer of before, which somebody may still hold, writes nothing more.
  void Retire() {
    if (const auto stage = live_.lock()) stage->Retire();
    live_.reset();
  }

  const Qcow2Options options_;
  const ExportPlace place_;
  const std::string name_;
  std::weak_ptr<Qcow2Stage> live_;
};

}  // namespace

std::unique_ptr<Target> MakeQcow2Target(const std::string& path,
                                        const Qcow2Options& options,
                                        FolderOpener open_folder) {
  if (options.chain) {
    return MakeQcow2ChainTarget(path, options, std::move(open_folder));
  }
  return std::make_unique<Qcow2FileTarget>(path, options,
                                           std::move(open_folder));
}

std::unique_ptr<Target> MakeQcow2Target(const std::string& path,
                                        const Qcow2Options& options) {
  const size_t slash = path.rfind('/');
  const std::string folder =
      slash == std::string::npos ? "" : path.substr(0, slash + 1);
  return MakeQcow2Target(path, options,
                         [folder] { return OpenHostFolder(folder); });
}

}  // namespace snapsync
