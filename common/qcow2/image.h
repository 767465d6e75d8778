// SPDX-License-Identifier: Apache-2.0
//
// A QCOW2 image, with all that is behind it, as a BlockReader: what a guest
// would see. Versions 2 and 3, clusters of 512 bytes to 2 MiB, backing chains,
// deflate and zstd, zero clusters, extended L2 entries, external data files.
// Not read: encrypted images, and images whose tables are not sound in every
// entry that matters (metadata_check.h). Internal snapshots and bitmaps are
// left out.
//
// This is the reader in this very process. For images from elsewhere take
// OpenConfinedImage() (confined_image.h), which is the same from outside.
//
// Thread-safe. Errors name the file: kIo damage, kTargetUnsuitable what is not
// supported, kPermission what the policy forbids (image_files.h), kBusy an
// image in use.
#ifndef SNAPSYNC_COMMON_QCOW2_IMAGE_H_
#define SNAPSYNC_COMMON_QCOW2_IMAGE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "common/block/block_device.h"
#include "common/block/extent.h"
#include "common/qcow2/header.h"
#include "common/qcow2/image_files.h"

namespace snapsync::qcow2 {

struct ImageOptions {
  FilePolicy files;
  ChainOptions chain;
};

struct ImageFacts {
  uint32_t version = 0;
  uint64_t cluster_size = 0;
  uint32_t files = 0;  // the image and all that is behind it
  // What an export says of itself, and whether that still holds (header.h).
  std::optional<Identity> identity;
  bool untouched = false;
};

class Image : public BlockReader {
 public:
  virtual const ImageFacts& facts() const = 0;
  // Of all its files, as FileVersion() has it; empty if one of them has none.
  virtual std::string FileVersions() const = 0;
  // What may hold data; all else reads as zeroes, and so may some of it.
  virtual absl::StatusOr<ExtentList> DataExtents() = 0;
};

// An image whose header can be looked at, since it was parsed here.
class LocalImage : public Image {
 public:
  virtual const Header& header() const = 0;
};

ImageFacts FactsOf(const Header& header, size_t files);

// Whether an operation is one of whole sectors within the disk.
absl::Status CheckRange(const BlockReader& image,
                        const ReadOperation& operation);

// Opens the image at `path` and checks all of its metadata.
absl::StatusOr<std::unique_ptr<LocalImage>> OpenImage(
    const std::string& path, const ImageOptions& options);

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_IMAGE_H_
