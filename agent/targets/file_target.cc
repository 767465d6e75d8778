// SPDX-License-Identifier: Apache-2.0
//
// A regular file, written to a copy beside it (a reflink where the file system
// can) and committed by a rename. Which of the two the name leads to is what
// says, after any crash, whether the commit has happened: the stage's inode
// number and time of birth are in the token.
//
// Every look begins at the open folder and follows no symbolic link in the last
// component; what is checked is the open file, and what is opened for writing
// is that same open file again.
//
// A seal rests on the file's change time, which the kernel sets at each write
// and nobody can set back, and on a sample of the contents. The number of the
// file system's device is not in it: that changes when it is mounted again.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <thread>
#include <utility>

#include "agent/targets/named_values.h"
#include "agent/targets/target.h"
#include "common/base/aligned_buffer.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"
#include "common/base/units.h"
#include "common/block/content_sample.h"
#include "common/block/device_holders.h"
#include "common/block/device_identity.h"
#include "common/block/file_device.h"

namespace snapsync {
namespace {

constexpr char kFileStage[] = "file-stage";
constexpr char kFileSeal[] = "file-seal";
constexpr char kStageSuffix[] = ".snapsync-stage";

uint64_t Nanoseconds(const struct statx_timestamp& time) {
  return static_cast<uint64_t>(time.tv_sec) * 1000000000 + time.tv_nsec;
}

// An open regular file and what it is.
struct OpenedFile {
  UniqueFd fd;
  struct statx facts {};

  // Leads to this very file, whatever its name is by now.
  std::string DescriptorPath() const {
    return "/proc/self/fd/" + std::to_string(fd.get());
  }
  uint64_t birth() const {
    return (facts.stx_mask & STATX_BTIME) != 0 ? Nanoseconds(facts.stx_btime)
                                               : 0;
  }
  // Whether it is the stage of `token`.
  bool Is(const NamedValues& token) const {
    return facts.stx_ino == token.Number("inode") &&
           birth() == token.Number("birth");
  }
};

absl::Status ReadFacts(const std::string& path, OpenedFile& file) {
  if (::statx(file.fd.get(), "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME,
              &file.facts) != 0) {
    return PosixError(errno, path + ": can't be examined");
  }
  return absl::OkStatus();
}

// Copies [offset, end) by reading and writing it.
absl::Status CopyPlainly(int from, int to, off_t offset, off_t end,
                         const std::string& name) {
  AlignedBuffer buffer(kMiB);
  while (offset < end) {
    const size_t wanted =
        std::min(buffer.size(), static_cast<size_t>(end - offset));
    const ssize_t got = ::pread(from, buffer.data(), wanted, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return PosixError(errno, name + ": can't be copied");
    if (got == 0) return absl::OkStatus();  // shorter meanwhile: the seal tells
    for (ssize_t done = 0; done < got;) {
      const ssize_t put =
          ::pwrite(to, buffer.data() + done, static_cast<size_t>(got - done),
                   offset + done);
      if (put < 0 && errno != EINTR) {
        return WriteError(errno, name + ": can't be copied");
      }
      done += std::max<ssize_t>(put, 0);
    }
    offset += got;
  }
  return absl::OkStatus();
}

absl::Status CopyRange(int from, int to, off_t offset, off_t end,
                       const std::string& name) {
  while (offset < end) {
    off_t to_offset = offset;
    const ssize_t copied = ::copy_file_range(
        from, &offset, to, &to_offset, static_cast<size_t>(end - offset), 0);
    if (copied < 0 && errno == EINTR) continue;
    if (copied < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EIO)) {
      return WriteError(errno, name + ": can't be copied");
    }
    // Not every file system knows the call.
    if (copied < 0) return CopyPlainly(from, to, offset, end, name);
    if (copied == 0) return absl::OkStatus();
  }
  return absl::OkStatus();
}

// The contents, with holes kept.
absl::Status CopyContents(int from, int to, uint64_t size,
                          const std::string& name) {
  if (::ioctl(to, FICLONE, from) == 0) return absl::OkStatus();
  const off_t end = static_cast<off_t>(size);
  for (off_t at = 0; at < end;) {
    const off_t data = ::lseek(from, at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    if (data < 0) return CopyRange(from, to, at, end, name);
    off_t hole = ::lseek(from, data, SEEK_HOLE);
    if (hole < 0) hole = end;
    SNAPSYNC_RETURN_IF_ERROR(
        CopyRange(from, to, data, std::min(hole, end), name));
    at = hole;
  }
  return absl::OkStatus();
}

class RegularFileTarget final : public Target {
 public:
  explicit RegularFileTarget(const std::string& path) : path_(path) {
    const size_t slash = path.rfind('/');
    folder_ = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    name_ = slash == std::string::npos ? path : path.substr(slash + 1);
    stage_name_ = name_ + kStageSuffix;
  }

  bool in_place() const override { return false; }

  absl::StatusOr<TargetFacts> Inspect() override {
    SNAPSYNC_ASSIGN_OR_RETURN(const UniqueFd folder, OpenFolder());
    TargetFacts facts;
    facts.grows = true;
    SNAPSYNC_ASSIGN_OR_RETURN(facts.identity, Identity());
    SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<OpenedFile> file,
                              OpenFile(folder, name_));
    if (!file.has_value()) {
      facts.blank = true;
      return facts;
    }
    SNAPSYNC_RETURN_IF_ERROR(CheckNotOpen(*file));
    facts.place = PlaceOf(file->DescriptorPath());
    facts.size = file->facts.stx_size;
    facts.blank = facts.size == 0 ||
                  (::lseek(file->fd.get(), 0, SEEK_DATA) < 0 && errno == ENXIO);
    return facts;
  }

  absl::Status CheckSeal(const std::string& seal) override {
    SNAPSYNC_ASSIGN_OR_RETURN(const UniqueFd folder, OpenFolder());
    SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<OpenedFile> file,
                              OpenFile(folder, name_));
    return CheckSealOf(file, seal);
  }

  absl::StatusOr<std::unique_ptr<BlockReader>> OpenReader() override {
    SNAPSYNC_ASSIGN_OR_RETURN(const UniqueFd folder, OpenFolder());
    SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<OpenedFile> file,
                              OpenFile(folder, name_));
    if (!file.has_value()) {
      return Error(Reason::kBaseMismatch, path_ + " does not exist any more");
    }
    SNAPSYNC_RETURN_IF_ERROR(CheckNotOpen(*file));
    return OpenFileReader(file->DescriptorPath());
  }

  absl::StatusOr<std::string> CreateStage(uint64_t size,
                                          bool from_base) override {
    SNAPSYNC_ASSIGN_OR_RETURN(const UniqueFd folder, OpenFolder());
    SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<OpenedFile> file,
                              OpenFile(folder, name_));
    if (from_base && !file.has_value()) {
      return Error(Reason::kBaseMismatch, path_ + " does not exist any more");
    }
    SNAPSYNC_RETURN_IF_ERROR(RemoveStageIn(folder, nullptr));
    OpenedFile stage;
    stage.fd.Reset(::openat(folder.get(), stage_name_.c_str(),
                            O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                            0600));
    if (!stage.fd.valid()) {
      return WriteError(errno, StagePath() + " can't be made");
    }
    absl::Status status = FillStage(stage, from_base ? &*file : nullptr, size);
    if (status.ok()) status = SyncFolder(folder);
    if (!status.ok()) {
      ::unlinkat(folder.get(), stage_name_.c_str(), 0);
      return status;
    }
    return NamedValues(kFileStage)
        .Set("inode", stage.facts.stx_ino)
        .Set("birth", stage.birth())
        .ToString();
  }

  absl::StatusOr<std::unique_ptr<BlockWriter>> OpenStage(
      const std::string& token) override {
    SNAPSYNC_ASSIGN_OR_RETURN(const NamedValues wanted,
                              NamedValues::Parse(kFileStage, token));
    SNAPSYNC_ASSIGN_OR_RETURN(const UniqueFd folder, OpenFolder());
    SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<OpenedFile> stage,
                              OpenFile(folder, stage_name_));
    if (!stage.has_value() || !stage->Is(wanted)) {
      return Error(Reason::kBaseMismatch,
                   StagePath() + " is not there any more");
    }
    WriterOptions options;
    options.name = StagePath();
    return OpenFileWriter(stage->DescriptorPath(), options);
  }

  absl::StatusOr<std::string> Commit(const std::string& token,
                                     uint64_t /*number*/,
                                     const Id128& /*generation*/,
                                     const std::string& base_seal) override {
    SNAPSYNC_ASSIGN_OR_RETURN(const NamedValues wanted,
                              NamedValues::Parse(kFileStage, token));
    SNAPSYNC_ASSIGN_OR_RETURN(const UniqueFd folder, OpenFolder());
    SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<OpenedFile> stage,
                              OpenFile(folder, stage_name_));
    if (stage.has_value() && stage->Is(wanted)) {
      SNAPSYNC_RETURN_IF_ERROR(Switch(folder, *stage, base_seal));
    }
    SNAPSYNC_ASSIGN_OR_RETURN(std::optional<OpenedFile> file,
                              OpenFile(folder, name_));
    if (!file.has_value() || !file->Is(wanted)) {
      return Error(Reason::kBaseMismatch, StagePath() +
                                              " is not there any more, and " +
                                              path_ + " is another file");
    }
    SNAPSYNC_RETURN_IF_ERROR(SyncFolder(folder));
    return MakeSeal(*file);
  }

  absl::Status RemoveStage(const std::string& token) override {
    SNAPSYNC_ASSIGN_OR_RETURN(const UniqueFd folder, OpenFolder());
    if (token.empty()) return RemoveStageIn(folder, nullptr);
    SNAPSYNC_ASSIGN_OR_RETURN(const NamedValues wanted,
                              NamedValues::Parse(kFileStage, token));
    return RemoveStageIn(folder, &wanted);
  }

  absl::Status Prune(uint64_t /*number*/, uint64_t /*keep*/) override {
    return absl::OkStatus();
  }

 private:
  std::string StagePath() const {
    return (folder_ == "." ? "" : folder_) + stage_name_;
  }

  absl::StatusOr<UniqueFd> OpenFolder() const {
    if (name_.empty() || name_ == "." || name_ == "..") {
      return Error(Reason::kTargetUnsuitable, path_ + " is no file's name");
    }
    UniqueFd folder(
        ::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder.valid()) {
      return PosixError(errno, "folder " + folder_ + " can't be opened",
                        Reason::kTargetUnsuitable);
    }
    return folder;
  }

  absl::Status SyncFolder(const UniqueFd& folder) const {
    if (::fsync(folder.get()) == 0) return absl::OkStatus();
    return PosixError(errno, "folder " + folder_ + " can't be flushed");
  }

  absl::StatusOr<std::string> Identity() const {
    char* real = ::realpath(folder_.c_str(), nullptr);
    if (real == nullptr) {
      return PosixError(errno, "folder " + folder_ + " can't be resolved");
    }
    const std::string folder = real;
    std::free(real);
    return "file:" + (folder == "/" ? "" : folder) + "/" + name_;
  }

  // nullopt when there is none. kTargetUnsuitable for what is no regular file
  // of one name.
  absl::StatusOr<std::optional<OpenedFile>> OpenFile(
      const UniqueFd& folder, const std::string& name) const {
    const std::string path = (folder_ == "." ? "" : folder_) + name;
    // Looked at first: opening a device or a pipe may do something.
    struct stat facts {};
    if (::fstatat(folder.get(), name.c_str(), &facts, AT_SYMLINK_NOFOLLOW) !=
        0) {
      if (errno == ENOENT) return std::optional<OpenedFile>();
      return PosixError(errno, path + ": can't be examined");
    }
    OpenedFile file;
    if (S_ISREG(facts.st_mode)) {
      file.fd.Reset(::openat(folder.get(), name.c_str(),
                             O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
      if (!file.fd.valid()) return PosixError(errno, path + " can't be opened");
      SNAPSYNC_RETURN_IF_ERROR(ReadFacts(path, file));
    }
    if (!file.fd.valid() || !S_ISREG(file.facts.stx_mode)) {
      return Error(Reason::kTargetUnsuitable,
                   path + (S_ISLNK(facts.st_mode)
                               ? " is a symbolic link; name the file itself"
                               : " is no regular file"));
    }
    if (file.facts.stx_nlink != 1) {
      return Error(Reason::kTargetUnsuitable,
                   path + " has " + std::to_string(file.facts.stx_nlink) +
                       " names (hard links); the others would keep the old "
                       "contents");
    }
    return std::optional<OpenedFile>(std::move(file));
  }

  absl::Status CheckNotOpen(const OpenedFile& file) const {
    SNAPSYNC_ASSIGN_OR_RETURN(const std::string holder,
                              DescribeHolders(file.DescriptorPath()));
    if (holder.empty()) return absl::OkStatus();
    return Error(Reason::kBusy,
                 path_ + " is " + holder + "; try again when it is free");
  }

  absl::Status FillStage(OpenedFile& stage, const OpenedFile* base,
                         uint64_t size) const {
    if (base != nullptr) {
      SNAPSYNC_RETURN_IF_ERROR(CopyContents(base->fd.get(), stage.fd.get(),
                                            base->facts.stx_size, path_));
    }
    if (::ftruncate(stage.fd.get(), static_cast<off_t>(size)) != 0) {
      return WriteError(errno, StagePath() + " can't have " +
                                   std::to_string(size) + " bytes");
    }
    if (::fsync(stage.fd.get()) != 0) {
      return WriteError(errno, StagePath() + ": flush failed");
    }
    return ReadFacts(StagePath(), stage);
  }

  absl::Status Switch(const UniqueFd& folder, const OpenedFile& stage,
                      const std::string& base_seal) const {
    SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<OpenedFile> old,
                              OpenFile(folder, name_));
    if (!base_seal.empty()) {
      SNAPSYNC_RETURN_IF_ERROR(CheckSealOf(old, base_seal));
    }
    if (old.has_value()) {
      SNAPSYNC_RETURN_IF_ERROR(CheckNotOpen(*old));
      if (::fchown(stage.fd.get(), old->facts.stx_uid, old->facts.stx_gid) !=
              0 ||
          ::fchmod(stage.fd.get(), old->facts.stx_mode & 07777U) != 0) {
        return PosixError(errno, StagePath() +
                                     " can't have the owner and the mode "
                                     "of " +
                                     path_);
      }
    }
    if (::fsync(stage.fd.get()) != 0) {
      return PosixError(errno, StagePath() + ": flush failed");
    }
    if (::renameat(folder.get(), stage_name_.c_str(), folder.get(),
                   name_.c_str()) != 0) {
      return PosixError(errno, StagePath() + " can't be renamed");
    }
    return absl::OkStatus();
  }

  // `only`: nullptr, or the token whose stage it has to be.
  absl::Status RemoveStageIn(const UniqueFd& folder,
                             const NamedValues* only) const {
    SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<OpenedFile> stage,
                              OpenFile(folder, stage_name_));
    if (!stage.has_value() || (only != nullptr && !stage->Is(*only))) {
      return absl::OkStatus();
    }
    if (::unlinkat(folder.get(), stage_name_.c_str(), 0) != 0) {
      return PosixError(errno, StagePath() + " can't be removed");
    }
    return SyncFolder(folder);
  }

  absl::StatusOr<std::string> Sample(const OpenedFile& file) const {
    auto reader = OpenFileReader(file.DescriptorPath());
    if (!reader.ok()) return Annotate(reader.status(), path_);
    auto sample = SampleContent(**reader);
    if (!sample.ok()) return Annotate(sample.status(), path_);
    return Hex(sample->fingerprint);
  }

  absl::Status CheckSealOf(const std::optional<OpenedFile>& file,
                           const std::string& seal) const {
    SNAPSYNC_ASSIGN_OR_RETURN(const NamedValues values,
                              NamedValues::Parse(kFileSeal, seal));
    if (!file.has_value()) {
      return Error(Reason::kBaseMismatch, path_ + " does not exist any more");
    }
    const struct statx& now = file->facts;
    std::string what;
    if (now.stx_ino != values.Number("inode")) {
      what = "is another file than";
    } else if (now.stx_size != values.Number("size")) {
      what = "has another size than";
    } else if (Nanoseconds(now.stx_mtime) != values.Number("written") ||
               Nanoseconds(now.stx_ctime) != values.Number("changed")) {
      what = "was written to or changed after";
    } else {
      SNAPSYNC_ASSIGN_OR_RETURN(const std::string sample, Sample(*file));
      if (sample != values.Text("sample")) what = "has other contents than";
    }
    if (what.empty()) return absl::OkStatus();
    return Error(Reason::kBaseMismatch,
                 path_ + " " + what + " the last sync left it");
  }

  absl::StatusOr<std::string> MakeSeal(OpenedFile& file) const {
    // Times of files move in steps of the kernel's clock (some milliseconds).
    // The seal is made after the step in which the file was changed last: a
    // write that comes after it then shows.
    while (true) {
      struct timespec now {};
      ::clock_gettime(CLOCK_REALTIME_COARSE, &now);
      SNAPSYNC_RETURN_IF_ERROR(ReadFacts(path_, file));
      const struct statx_timestamp& changed = file.facts.stx_ctime;
      // A time in the future (the clock was set back) is not waited for.
      if (changed.tv_sec != now.tv_sec ||
          changed.tv_nsec < static_cast<uint64_t>(now.tv_nsec)) {
        break;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    SNAPSYNC_ASSIGN_OR_RETURN(const std::string sample, Sample(file));
    return NamedValues(kFileSeal)
        .Set("inode", file.facts.stx_ino)
        .Set("size", file.facts.stx_size)
        .Set("written", Nanoseconds(file.facts.stx_mtime))
        .Set("changed", Nanoseconds(file.facts.stx_ctime))
        .Set("sample", sample)
        .ToString();
  }

  const std::string path_;
  std::string folder_;  // ends with '/', or is "."
  std::string name_;
  std::string stage_name_;
};

}  // namespace

std::unique_ptr<Target> MakeFileTarget(const std::string& path) {
  return std::make_unique<RegularFileTarget>(path);
}

}  // namespace snapsync
