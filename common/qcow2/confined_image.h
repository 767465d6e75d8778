// SPDX-License-Identifier: Apache-2.0
//
// An image whose parser and decompressors run in a process without rights
// (reader_server.h), so that an image which is made to break them gets nothing
// but the power to lie about its own contents. This process opens the files and
// decides which may be opened; it reads plain data itself, from where the other
// one says, within those files; it takes decompressed data out of shared
// memory. Whatever the other process says is checked, and it is never waited
// for without end.
#ifndef SNAPSYNC_COMMON_QCOW2_CONFINED_IMAGE_H_
#define SNAPSYNC_COMMON_QCOW2_CONFINED_IMAGE_H_

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/qcow2/image.h"

namespace snapsync::qcow2 {

struct ReaderOptions {
  // Empty: snapsync-qcow2-reader beside the running program.
  std::string program;
  // An answer that takes longer is none. A disk may take a while.
  std::chrono::milliseconds patience = std::chrono::seconds(120);
};

// Opens the image at `path` and has all of its metadata checked. Errors are
// those of OpenImage(), and of the process (reader_process.h). After an error
// of Read() or DataExtents() the image is of no use any more.
absl::StatusOr<std::unique_ptr<Image>> OpenConfinedImage(
    const std::string& path, const ImageOptions& options,
    const ReaderOptions& reader = {});

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_CONFINED_IMAGE_H_
