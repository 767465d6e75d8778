// SPDX-License-Identifier: Apache-2.0
//
// A real folder of which every change is written down, in order, so that a test
// can ask what a power cut between any two of them may leave. The fault model:
//
//   - what was flushed is there; names, what the folder's flush made durable
//   - of what was not, any sector of 512 bytes may be there or not, whatever
//     came before or after it; the file may have any size that it had since
//   - of names that were not made durable, any change may be there or not
//
// Used by one thread at a time, after the code under test has stopped.
#ifndef SNAPSYNC_TESTS_TESTING_RECORDING_FOLDER_H_
#define SNAPSYNC_TESTS_TESTING_RECORDING_FOLDER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/block/host_folder.h"
#include "tests/testing/random.h"

namespace snapsync {

struct FolderChange {
  enum class Kind {
    kCreate,  // name -> file
    kWrite,
    kResize,
    kPunch,
    kFlush,
    kRename,  // name, to
    kRemove,  // name
    kFlushFolder,
    kNothing,  // a flush that was taken away
  };
  Kind kind = Kind::kFlushFolder;
  size_t file = 0;
  uint64_t offset = 0;  // the size, for kResize
  uint64_t length = 0;
  std::vector<std::byte> data;
  std::string name;
  std::string to;
};

class Recording {
 public:
  // Takes what is in the folder for durable.
  explicit Recording(const std::string& path) : Recording(path, path) {}
  // What is durable is in the folder `durable`, which has the same names: the
  // rest is what a failed flush left in the page cache.
  Recording(const std::string& path, const std::string& durable);

  // Wraps `folder`: its changes are written down from now on. The recording
  // must outlive it.
  std::unique_ptr<HostFolder> Wrap(std::unique_ptr<HostFolder> folder);
  // Asked before each change; an error is returned and nothing done.
  std::function<absl::Status(const FolderChange&)> before;

  size_t size() const { return changes_.size(); }
  const FolderChange& at(size_t index) const { return changes_[index]; }

  // Makes in the empty folder `path` what a power cut after the first `count`
  // changes may leave. Each loss has the chance `loss` (percent); names are
  // lost with the chance `name_loss`.
  void MakeCrashed(size_t count, double loss, double name_loss, Random& random,
                   const std::string& path) const;

  // Whether all that was changed before the change `flush` is there even if
  // what was not flushed is lost.
  bool SavesNothing(size_t flush) const;
  // The flush `index` has done nothing.
  void TakeAway(size_t index) {
    changes_[index].kind = FolderChange::Kind::kNothing;
  }

  // For the wrappers.
  absl::Status Note(FolderChange change);
  size_t FileOf(const std::string& name) { return names_.at(name); }
  size_t NewFile() { return files_++; }
  void Name(const std::string& name, size_t file) { names_[name] = file; }
  void Unname(const std::string& name) { names_.erase(name); }

 private:
  using Contents = std::vector<std::byte>;

  Contents CrashedFile(size_t file, size_t count, double loss,
                       Random& random) const;
  std::map<std::string, size_t> CrashedNames(size_t count, double loss,
                                             Random& random) const;

  std::map<std::string, size_t> first_names_;
  std::map<size_t, Contents> first_contents_;
  std::map<std::string, size_t> names_;  // as they are by now
  size_t files_ = 0;
  std::vector<FolderChange> changes_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_TESTS_TESTING_RECORDING_FOLDER_H_
