// SPDX-License-Identifier: Apache-2.0
//
// A QCOW2 image whose shape comes with each session (Target::SetImage()): one
// file or a chain, its size, its clusters (qcow2_target.h has those).
#include <bit>
#include <memory>
#include <optional>
#include <string>

#include "agent/targets/qcow2_target.h"
#include "agent/targets/target.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"

namespace snapsync {
namespace {

constexpr uint64_t kSmallestCluster = uint64_t{4} << 10;
constexpr uint64_t kLargestCluster = uint64_t{2} << 20;

absl::StatusOr<Qcow2Options> OptionsOf(const std::string& path,
                                       const ExportOptions& wanted,
                                       const std::string& replication) {
  Qcow2Options options;
  options.replication = replication;
  options.chain = wanted.chain;
  options.virtual_size = wanted.virtual_size;
  if (wanted.cluster_size != 0) options.cluster_size = wanted.cluster_size;
  if (options.cluster_size < kSmallestCluster ||
      options.cluster_size > kLargestCluster ||
      !std::has_single_bit(options.cluster_size)) {
    return Error(Reason::kTargetUnsuitable,
                 path + ": clusters of " +
                     std::to_string(options.cluster_size) +
                     " bytes; it must be a power of two, 4K to 2M");
  }
  if (options.virtual_size % kSectorBytes != 0) {
    return Error(Reason::kTargetUnsuitable,
                 path + ": a size of " + std::to_string(options.virtual_size) +
                     " bytes is no multiple of 512");
  }
  if (wanted.compression == "zstd") {
    options.compression = Qcow2Options::Compression::kZstd;
  } else if (wanted.compression == "zlib") {
    options.compression = Qcow2Options::Compression::kZlib;
  } else if (!wanted.compression.empty() && wanted.compression != "none") {
    return Error(Reason::kTargetUnsuitable,
                 path + ": compression \"" + wanted.compression +
                     "\"; there are none, zlib and zstd");
  }
  return options;
}

class ImageTarget final : public Target {
 public:
  explicit ImageTarget(const std::string& path)
      : path_(path), target_(MakeQcow2Target(path, Qcow2Options())) {}

  absl::Status SetImage(const ExportOptions& wanted,
                        const std::string& replication) override {
    if (wanted == wanted_ && replication == replication_) {
      return absl::OkStatus();
    }
    SNAPSYNC_ASSIGN_OR_RETURN(const Qcow2Options options,
                              OptionsOf(path_, wanted, replication));
    target_ = MakeQcow2Target(path_, options);
    wanted_ = wanted;
    replication_ = replication;
    return absl::OkStatus();
  }

  bool in_place() const override { return target_->in_place(); }
  absl::StatusOr<TargetFacts> Inspect() override { return target_->Inspect(); }
  absl::Status CheckSeal(const std::string& seal) override {
    return target_->CheckSeal(seal);
  }
  absl::StatusOr<std::unique_ptr<BlockReader>> OpenReader() override {
    return target_->OpenReader();
  }
  absl::StatusOr<std::string> CreateStage(uint64_t size,
                                          bool from_base) override {
    return target_->CreateStage(size, from_base);
  }
  absl::StatusOr<std::unique_ptr<BlockWriter>> OpenStage(
      const std::string& token) override {
    return target_->OpenStage(token);
  }
  absl::StatusOr<std::string> Commit(const std::string& token, uint64_t number,
                                     const Id128& generation,
                                     const std::string& base_seal) override {
    return target_->Commit(token, number, generation, base_seal);
  }
  absl::StatusOr<std::string> GenerationPath(uint64_t number) override {
    if (number == 0 && !wanted_.chain) return path_;
    return Error(Reason::kTargetUnsuitable,
                 path_ + ": of a chain name the file itself, NAME.gN.qcow2");
  }
  absl::Status RemoveStage(const std::string& token) override {
    return target_->RemoveStage(token);
  }
  absl::Status Prune(uint64_t number, uint64_t keep) override {
    return target_->Prune(number, keep);
  }

 private:
  const std::string path_;
  ExportOptions wanted_;
  std::string replication_;
  std::unique_ptr<Target> target_;
};

}  // namespace

std::unique_ptr<Target> MakeImageTarget(const std::string& path) {
  return std::make_unique<ImageTarget>(path);
}

}  // namespace snapsync
