// SPDX-License-Identifier: Apache-2.0
//
// The next generation of an image, in the same file, by a shadow root: all that
// is new goes to host clusters that the committed image does not use: data,
// tables, refcounts. Then one sector, the header's, makes it the image. At
// every instant the file is the old generation or the new one, and clean.
//
//   everything new; flush
//   the header's first sector; flush
//   what the old generation alone used is given back
//
// Rests on a disk that writes a sector whole or not at all; the checksum in the
// identity finds one that did not.
#ifndef SNAPSYNC_COMMON_QCOW2_IMAGE_UPDATE_H_
#define SNAPSYNC_COMMON_QCOW2_IMAGE_UPDATE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/block/host_folder.h"
#include "common/qcow2/cluster_store.h"
#include "common/qcow2/committed_image.h"
#include "common/qcow2/image_writer.h"

namespace snapsync::qcow2 {

// What an ImageWriter of `size` bytes begins with, over `image` in the first
// `file_clusters` host clusters of `file`.
absl::StatusOr<ImageWriter::Base> BeginUpdate(GrowingFile& file,
                                              const CommittedImage& image,
                                              uint64_t size,
                                              uint64_t file_clusters);

// Commits what `store` has over `image`. Size, identity and whatever else of
// `header` is not a table's place is the caller's.
absl::Status FinishUpdate(ClusterStore& store, const CommittedImage& image,
                          ExportHeader header);

// Gives back what an update wrote that was not committed, or what a crash kept
// a committed one from giving back; the image stays as it is. The file has
// `file_bytes` afterwards if it has more now.
absl::Status GiveBackUnused(GrowingFile& file, uint64_t file_bytes);

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_IMAGE_UPDATE_H_
