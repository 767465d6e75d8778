// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/image.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "common/base/error.h"
#include "common/base/mutex.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "common/qcow2/extent_collector.h"
#include "common/qcow2/sector_reader.h"

namespace snapsync::qcow2 {
namespace {

constexpr size_t kExtentsAtATime = 4096;

class OpenedImage final : public LocalImage {
 public:
  OpenedImage(std::string name, std::unique_ptr<const ImageFiles> files,
              std::unique_ptr<const Chain> chain,
              std::unique_ptr<SectorReader> sectors)
      : name_(std::move(name)),
        files_(std::move(files)),
        chain_(std::move(chain)),
        sectors_(std::move(sectors)),
        facts_(FactsOf(chain_->header(), sectors_->file_count())) {}

  const std::string& name() const override { return name_; }
  uint64_t size() const override { return chain_->size(); }
  const Header& header() const override { return chain_->header(); }
  const ImageFacts& facts() const override { return facts_; }
  std::string FileVersions() const override { return files_->Versions(); }

  absl::Status Read(std::span<const ReadOperation> operations) override {
    std::unique_ptr<DecoderScratch> scratch = TakeScratch();
    std::vector<SectorReader::Part> parts;
    for (const ReadOperation& operation : operations) {
      SNAPSYNC_RETURN_IF_ERROR(CheckRange(*this, operation));
      SNAPSYNC_RETURN_IF_ERROR(Find(operation, *scratch, parts));
    }
    {
      MutexLock lock(&mutex_);
      idle_.push_back(std::move(scratch));
    }
    return sectors_->Read(parts);
  }

  absl::StatusOr<ExtentList> DataExtents() override {
    ExtentCollector collector;
    std::vector<Extent> found;
    for (uint64_t at = 0; at < size();) {
      found.clear();
      SNAPSYNC_ASSIGN_OR_RETURN(at,
                                chain_->FindData(at, kExtentsAtATime, found));
      for (const Extent& extent : found) collector.Append(extent);
    }
    return std::move(collector).Finish();
  }

 private:
  // Fills what is not plain data, and adds what is to `parts`.
  absl::Status Find(const ReadOperation& operation, DecoderScratch& scratch,
                    std::vector<SectorReader::Part>& parts) {
    const uint64_t end = operation.offset + operation.data.size();
    for (uint64_t at = operation.offset; at < end;) {
      SNAPSYNC_ASSIGN_OR_RETURN(const Run run, chain_->FindRun(at, end));
      const auto out =
          operation.data.subspan(at - operation.offset, run.length);
      if (run.kind == Run::Kind::kData) {
        parts.push_back({run.file, {run.host_offset, out}});
      } else if (run.kind == Run::Kind::kCompressed) {
        SNAPSYNC_RETURN_IF_ERROR(chain_->Decode(run, scratch, out));
      } else {
        std::memset(out.data(), 0, out.size());
      }
      at += run.length;
    }
    return absl::OkStatus();
  }

  std::unique_ptr<DecoderScratch> TakeScratch() {
    MutexLock lock(&mutex_);
    if (idle_.empty()) return std::make_unique<DecoderScratch>();
    auto scratch = std::move(idle_.back());
    idle_.pop_back();
    return scratch;
  }

  const std::string name_;
  const std::unique_ptr<const ImageFiles> files_;  // with the locks
  const std::unique_ptr<const Chain> chain_;
  const std::unique_ptr<SectorReader> sectors_;
  const ImageFacts facts_;

  Mutex mutex_;
  // As many as there were threads at work at a time.
  std::vector<std::unique_ptr<DecoderScratch>> idle_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

ImageFacts FactsOf(const Header& header, size_t files) {
  ImageFacts facts;
  facts.version = header.version;
  facts.cluster_size = header.cluster_size();
  facts.files = static_cast<uint32_t>(files);
  facts.identity = header.identity;
  facts.untouched = header.untouched;
  return facts;
}

absl::Status CheckRange(const BlockReader& image,
                        const ReadOperation& operation) {
  if (operation.offset % kSectorBytes == 0 &&
      operation.data.size() % kSectorBytes == 0 &&
      operation.offset <= image.size() &&
      operation.data.size() <= image.size() - operation.offset) {
    return absl::OkStatus();
  }
  return Error(Reason::kIo,
               image.name() + ": " + std::to_string(operation.data.size()) +
                   " bytes at offset " + std::to_string(operation.offset) +
                   " are not within the disk (" + std::to_string(image.size()) +
                   " bytes), or not whole sectors");
}

absl::StatusOr<std::unique_ptr<LocalImage>> OpenImage(
    const std::string& path, const ImageOptions& options) {
  auto files = std::make_unique<ImageFiles>(path, options.files);
  SNAPSYNC_ASSIGN_OR_RETURN(std::unique_ptr<const Chain> chain,
                            Chain::Open(*files, options.chain, [] {}));
  SNAPSYNC_ASSIGN_OR_RETURN(std::unique_ptr<SectorReader> sectors,
                            SectorReader::Make(files->files()));
  return std::make_unique<OpenedImage>(path, std::move(files), std::move(chain),
                                       std::move(sectors));
}

}  // namespace snapsync::qcow2
