// SPDX-License-Identifier: Apache-2.0
#include "agent/targets/qcow2_chain_target.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "agent/targets/named_values.h"
#include "agent/targets/qcow2_export.h"
#include "agent/targets/qcow2_fold.h"
#include "agent/targets/qcow2_part.h"
#include "agent/targets/qcow2_stage.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/qcow2/chain.h"
#include "common/qcow2/image.h"

namespace snapsync {
namespace {

constexpr std::string_view kExtension = ".qcow2";

class Qcow2ChainTarget final : public Target {
 public:
  Qcow2ChainTarget(const std::string& path, Qcow2Options options,
                   FolderOpener open_folder)
      : options_(std::move(options)),
        place_(path, std::move(open_folder)),
        stem_(place_.name().ends_with(kExtension)
                  ? place_.name().substr(
                        0, place_.name().size() - kExtension.size())
                  : place_.name()) {}

  bool in_place() const override { return false; }

  absl::StatusOr<TargetFacts> Inspect() override {
    SNAPSYNC_ASSIGN_OR_RETURN(const auto folder, place_.Open());
    SNAPSYNC_ASSIGN_OR_RETURN(const auto numbers, Numbers(*folder));
    return InspectExport(place_, *folder,
                         NameOf(numbers.empty() ? 0 : numbers.back()));
  }

  absl::Status CheckSeal(const std::string& seal) override {
    SNAPSYNC_ASSIGN_OR_RETURN(const auto folder, place_.Open());
    SNAPSYNC_ASSIGN_OR_RETURN(const std::vector<ChainLink> chain,
                              NewestChain(*folder));
    return CheckExportSeal(seal, chain.front().header,
                           folder->path() + chain.front().name);
  }

  absl::StatusOr<std::unique_ptr<BlockReader>> OpenReader() override {
    SNAPSYNC_ASSIGN_OR_RETURN(const auto folder, place_.Open());
    SNAPSYNC_ASSIGN_OR_RETURN(const std::vector<ChainLink> chain,
                              NewestChain(*folder));
    return OpenExport(*folder, chain.front().name, options_);
  }

  absl::StatusOr<std::string> CreateStage(uint64_t size,
                                          bool from_base) override {
    Retire();
    SNAPSYNC_ASSIGN_OR_RETURN(const auto folder, place_.Open());
    const Id128 stage = Id128::Random();
    SNAPSYNC_ASSIGN_OR_RETURN(qcow2::ExportHeader guard,
                              MakeGuardHeader(options_, size, stage));
    NamedValues token(kQcow2StageKind);
    token.Set("id", stage.ToString());
    if (from_base) {
      SNAPSYNC_ASSIGN_OR_RETURN(const std::vector<ChainLink> chain,
                                NewestChain(*folder));
      // The new file is one more.
      if (chain.size() >= qcow2::kMaxChainFiles) {
        return Error(Reason::kTargetUnsuitable,
                     place_.path() + ": a chain of " +
                         std::to_string(chain.size()) +
                         " files can't get longer; keep fewer generations, or "
                         "run a full export");
      }
      guard.backing_name = chain.front().name;
      token.Set("base", chain.front().header.identity.generation.ToString());
    }
    Qcow2Part part(&options_, folder.get(), place_.name());
    SNAPSYNC_RETURN_IF_ERROR(part.Remove());
    SNAPSYNC_RETURN_IF_ERROR(part.Create(guard));
    return token.ToString();
  }

  absl::StatusOr<std::unique_ptr<BlockWriter>> OpenStage(
      const std::string& token) override {
    Retire();
    SNAPSYNC_ASSIGN_OR_RETURN(const StageToken stage, ParseToken(token));
    SNAPSYNC_ASSIGN_OR_RETURN(const auto folder, place_.Open());
    SNAPSYNC_ASSIGN_OR_RETURN(auto backing, OpenBase(*folder, stage));
    Qcow2Part part(&options_, folder.get(), place_.name());
    auto opened = part.Open(stage.id, std::move(backing));
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
    Qcow2Part part(&options_, folder.get(), place_.name());
    SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<Id128> found, part.Find());
    if (found == stage.id) {
      SNAPSYNC_RETURN_IF_ERROR(
          CommitPart(*folder, part, stage, number, generation, base_seal));
    } else {
      SNAPSYNC_RETURN_IF_ERROR(CheckIsGeneration(*folder, NameOf(number),
                                                 options_, number, generation));
      SNAPSYNC_RETURN_IF_ERROR(folder->Flush());
    }
    SNAPSYNC_RETURN_IF_ERROR(part.RemoveJournal());
    SNAPSYNC_ASSIGN_OR_RETURN(const qcow2::ExportHeader header,
                              ReadExport(*folder, NameOf(number), options_));
    return MakeExportSeal(header);
  }

  absl::Status RemoveStage(const std::string& token) override {
    Retire();
    SNAPSYNC_ASSIGN_OR_RETURN(const auto folder, place_.Open());
    Qcow2Part part(&options_, folder.get(), place_.name());
    if (token.empty()) return part.Remove();
    SNAPSYNC_ASSIGN_OR_RETURN(const StageToken stage, ParseToken(token));
    SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<Id128> found, part.Find());
    return found == stage.id ? part.Remove() : absl::OkStatus();
  }

  absl::Status Prune(uint64_t number, uint64_t keep) override {
    SNAPSYNC_ASSIGN_OR_RETURN(const auto folder, place_.Open());
    SNAPSYNC_ASSIGN_OR_RETURN(const std::vector<uint64_t> numbers,
                              Numbers(*folder));
    // Room for the next file.
    keep = std::clamp<uint64_t>(keep, 1, qcow2::kMaxChainFiles - 1);
    const uint64_t wanted = number >= keep ? number - keep + 1 : 0;
    const auto oldest_kept =
        std::lower_bound(numbers.begin(), numbers.end(), wanted);
    if (oldest_kept == numbers.end() || *oldest_kept > number) {
      return absl::OkStatus();
    }
    SNAPSYNC_RETURN_IF_ERROR(MakeFull(*folder, NameOf(*oldest_kept)));
    for (auto old = numbers.begin(); old != oldest_kept; ++old) {
      const auto header = ReadExport(*folder, NameOf(*old), options_);
      // Only what is there, and ours.
      if (!header.ok()) continue;
      SNAPSYNC_RETURN_IF_ERROR(folder->Remove(NameOf(*old)));
    }
    return folder->Flush();
  }

 private:
  // A file of a chain and what is behind it.
  struct ChainLink {
    std::string name;
    qcow2::ExportHeader header;
  };
  struct StageToken {
    Id128 id;
    std::optional<Id128> base;
  };

  std::string NameOf(uint64_t number) const {
    return stem_ + ".g" + std::to_string(number) + std::string(kExtension);
  }

  // Of the generations, ascending.
  absl::StatusOr<std::vector<uint64_t>> Numbers(HostFolder& folder) const {
    SNAPSYNC_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                              folder.Names());
    const std::string prefix = stem_ + ".g";
    std::vector<uint64_t> numbers;
    for (const std::string& name : names) {
      uint64_t number = 0;
      if (!name.starts_with(prefix) || !name.ends_with(kExtension) ||
          name.size() <= prefix.size() + kExtension.size() ||
          !absl::SimpleAtoi(
              name.substr(prefix.size(),
                          name.size() - prefix.size() - kExtension.size()),
              &number) ||
          NameOf(number) != name) {
        continue;
      }
      numbers.push_back(number);
    }
    std::sort(numbers.begin(), numbers.end());
    return numbers;
  }

  // The file `name` and those behind it, down to the full one; proves that each
  // is what was committed.
  absl::StatusOr<std::vector<ChainLink>> ReadChain(
      HostFolder& folder, const std::string& name) const {
    std::vector<ChainLink> chain;
    for (std::string at = name; !at.empty();) {
      SNAPSYNC_ASSIGN_OR_RETURN(qcow2::ExportHeader header,
                                ReadExport(folder, at, options_));
      if (!chain.empty()) {
        const qcow2::Identity& above = chain.back().header.identity;
        const Id128& below = header.identity.generation;
        // The same as above: a fold that has yet to be given its name.
        if (below != above.previous && below != above.generation) {
          return Error(Reason::kBaseMismatch,
                       folder.path() + at + " is not the generation that " +
                           chain.back().name + " rests on; run a full export");
        }
      }
      if (chain.size() >= qcow2::kMaxChainFiles) {
        return Error(Reason::kBaseMismatch,
                     folder.path() + name +
                         " rests on too many files; run a full export");
      }
      chain.push_back({at, std::move(header)});
      at = chain.back().header.backing_name;
    }
    return chain;
  }

  absl::StatusOr<std::vector<ChainLink>> NewestChain(HostFolder& folder) const {
    SNAPSYNC_ASSIGN_OR_RETURN(const std::vector<uint64_t> numbers,
                              Numbers(folder));
    return ReadChain(folder, NameOf(numbers.empty() ? 0 : numbers.back()));
  }

  static absl::StatusOr<StageToken> ParseToken(const std::string& token) {
    SNAPSYNC_ASSIGN_OR_RETURN(const NamedValues values,
                              NamedValues::Parse(kQcow2StageKind, token));
    const std::optional<Id128> id = Id128::Parse(values.Text("id"));
    const std::string base = values.Text("base");
    StageToken stage;
    if (!base.empty()) stage.base = Id128::Parse(base);
    // The other kind's tokens name a file.
    if (!id.has_value() || !values.Text("file").empty() ||
        (!base.empty() && !stage.base.has_value())) {
      return Error(Reason::kBaseMismatch, "\"" + token + "\" names no stage");
    }
    stage.id = *id;
    return stage;
  }

  // What the stage is an overlay of; null when it is full.
  absl::StatusOr<std::unique_ptr<BlockReader>> OpenBase(
      HostFolder& folder, const StageToken& stage) const {
    if (!stage.base.has_value()) return nullptr;
    SNAPSYNC_ASSIGN_OR_RETURN(const std::vector<ChainLink> chain,
                              NewestChain(folder));
    if (chain.front().header.identity.generation != *stage.base) {
      return NoStage(place_.path());
    }
    return qcow2::OpenImage(folder.path() + chain.front().name,
                            qcow2::ImageOptions());
  }

  absl::Status CommitPart(HostFolder& folder, Qcow2Part& part,
                          const StageToken& stage, uint64_t number,
                          const Id128& generation,
                          const std::string& base_seal) {
    if (!base_seal.empty()) {
      SNAPSYNC_RETURN_IF_ERROR(CheckSeal(base_seal));
    }
    SNAPSYNC_ASSIGN_OR_RETURN(const std::vector<uint64_t> numbers,
                              Numbers(folder));
    if (!numbers.empty()) {
      SNAPSYNC_ASSIGN_OR_RETURN(
          const auto newest,
          folder.Open(NameOf(numbers.back()), HostFolder::Access::kRead));
      if (newest != nullptr) SNAPSYNC_RETURN_IF_ERROR(CheckNotOpen(*newest));
      if (numbers.back() >= number) {
        return Error(Reason::kTargetUnsuitable,
                     folder.path() + NameOf(numbers.back()) +
                         " is in the way of generation " +
                         std::to_string(number) +
                         "; move the files of the older chain somewhere else");
      }
    }
    SNAPSYNC_ASSIGN_OR_RETURN(auto backing, OpenBase(folder, stage));
    SNAPSYNC_RETURN_IF_ERROR(part.Finish(
        stage.id,
        IdentityOf(options_, number, generation, stage.base.value_or(Id128())),
        std::move(backing), nullptr));
    SNAPSYNC_RETURN_IF_ERROR(folder.Rename(part.name(), NameOf(number),
                                           HostFolder::IfThere::kRefuse));
    return folder.Flush();
  }

  // Writes all that is behind the file `name` into one file, and gives it that
  // name.
  absl::Status MakeFull(HostFolder& folder, const std::string& name) {
    SNAPSYNC_ASSIGN_OR_RETURN(std::vector<ChainLink> chain,
                              ReadChain(folder, name));
    while (chain.size() > 1) {
      const std::string full = chain.back().name;
      chain.pop_back();
      SNAPSYNC_RETURN_IF_ERROR(
          FoldOverlay(options_, folder, full, chain.back().name));
    }
    return absl::OkStatus();
  }

  void Retire() {
    if (const auto stage = live_.lock()) stage->Retire();
    live_.reset();
  }

  const Qcow2Options options_;
  const ExportPlace place_;
  const std::string stem_;
  std::weak_ptr<Qcow2Stage> live_;
};

}  // namespace

std::unique_ptr<Target> MakeQcow2ChainTarget(const std::string& path,
                                             const Qcow2Options& options,
                                             FolderOpener open_folder) {
  return std::make_unique<Qcow2ChainTarget>(path, options,
                                            std::move(open_folder));
}

}  // namespace snapsync
