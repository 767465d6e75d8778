// SPDX-License-Identifier: Apache-2.0
//
// An image and the files behind it (backing files, a data file), opened,
// checked and put together: where the bytes of any range of the disk are.
// Who may be opened is decided by a FileSource, since the names come out of
// the images.
//
// Offsets and sizes in bytes; ranges of multiples of 512 within size().
// Thread-safe after construction.
#ifndef SNAPSYNC_COMMON_QCOW2_CHAIN_H_
#define SNAPSYNC_COMMON_QCOW2_CHAIN_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/block/extent.h"
#include "common/qcow2/header.h"
#include "common/qcow2/layer.h"

namespace snapsync::qcow2 {

// Files in a chain, the image itself included.
inline constexpr size_t kMaxChainFiles = 16;

// Opens the files of one image, under its policy. Files are numbered in the
// order in which they were opened, the image is number 0.
class FileSource {
 public:
  enum class Role : uint8_t { kBacking, kData };

  virtual ~FileSource() = default;

  virtual absl::StatusOr<NumberedFile> OpenImage() = 0;
  // The file that `by` names. `name` is text of an image: hostile.
  virtual absl::StatusOr<NumberedFile> OpenNamed(Role role, uint32_t by,
                                                 const std::string& name) = 0;
};

struct ChainOptions {
  // Reads an image that is marked as corrupt.
  bool allow_corrupt = false;
  // Takes it that a backing file whose image does not say which format it has
  // is "raw" or "qcow2". Empty: it is refused. A guess by the file's contents
  // would let a guest choose the files that are read.
  std::string unrecorded_backing_format;
};

class Chain {
 public:
  // `at_work` is called again and again while tables are checked.
  static absl::StatusOr<std::unique_ptr<const Chain>> Open(
      FileSource& files, const ChainOptions& options,
      const std::function<void()>& at_work);

  // Of the image itself.
  const Header& header() const { return header_; }
  uint64_t size() const { return layers_.front()->size(); }

  // The run that begins at `offset`: zeroes, data or part of a compressed
  // cluster; it ends at `end` at the latest. Requires offset < end <= size().
  absl::StatusOr<Run> FindRun(uint64_t offset, uint64_t end) const;

  // Fills `out` with a run of kind kCompressed, or the beginning of it.
  absl::Status Decode(const Run& run, DecoderScratch& scratch,
                      std::span<std::byte> out) const {
    return layers_[run.layer]->Decode(run, scratch, out);
  }

  // Adds what of [offset, ...) may hold data to `extents`, until there are
  // `limit` of them or the disk ends. Returns where it stopped.
  absl::StatusOr<uint64_t> FindData(uint64_t offset, size_t limit,
                                    std::vector<Extent>& extents) const;

 private:
  Chain(Header header, std::vector<std::unique_ptr<const Layer>> layers)
      : header_(std::move(header)), layers_(std::move(layers)) {}

  const Header header_;
  const std::vector<std::unique_ptr<const Layer>> layers_;  // image first
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_CHAIN_H_
