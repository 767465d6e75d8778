// SPDX-License-Identifier: Apache-2.0
//
// Opens an image and the files that it names, under the operator's policy. The
// names are hostile: an image that a guest could write may name any file of the
// host as its backing file, and so carry it off.
//
// Without options a name is a plain relative one (no "..", no protocol, no
// json:), looked for from the folder of the file that names it, and the kernel
// keeps the walk below the image's own folder and off symbolic links; only
// regular files are opened, no file twice, and no external data file at all.
// Each file stays locked against writers as long as this object lives
// (locks.h).
//
// Errors: kPermission what the policy forbids, with the option that allows it;
// kBusy a file that is open for writing; kIo. Used by one thread at a time.
#ifndef SNAPSYNC_COMMON_QCOW2_IMAGE_FILES_H_
#define SNAPSYNC_COMMON_QCOW2_IMAGE_FILES_H_

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"
#include "common/qcow2/chain.h"
#include "common/qcow2/locks.h"

namespace snapsync::qcow2 {

struct FilePolicy {
  // Names may be absolute, have "..", and lead over symbolic links.
  bool allow_anywhere = false;
  // Block devices, too: an image on a logical volume.
  bool allow_devices = false;
  // An external data file, that is.
  bool allow_data_file = false;
  // Read also what a running QEMU has open for writing: what comes out is of
  // no one moment.
  bool ignore_locks = false;
};

class ImageFiles final : public FileSource {
 public:
  ImageFiles(std::string path, const FilePolicy& policy)
      : path_(std::move(path)), policy_(policy) {}

  absl::StatusOr<NumberedFile> OpenImage() override;
  absl::StatusOr<NumberedFile> OpenNamed(Role role, uint32_t by,
                                         const std::string& name) override;

  // Those that were opened, by their numbers.
  const std::vector<std::shared_ptr<const HostFile>>& files() const {
    return files_;
  }

  // See Image::FileVersions().
  std::string Versions() const;

 private:
  absl::StatusOr<NumberedFile> Add(UniqueFd path_fd, const std::string& name,
                                   std::string folder);

  const std::string path_;
  const FilePolicy policy_;
  UniqueFd root_;  // the image's folder
  std::vector<std::shared_ptr<const HostFile>> files_;
  std::vector<ImageLock> locks_;
  // Of each file: its folder below root_, empty or with "/" at its end.
  std::vector<std::string> folders_;
  std::set<std::pair<uint64_t, uint64_t>> seen_;  // device, inode
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_IMAGE_FILES_H_
