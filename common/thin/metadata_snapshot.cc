// SPDX-License-Identifier: Apache-2.0
#include "common/thin/metadata_snapshot.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <sstream>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/atomic_file.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"
#include "common/thin/metadata_device.h"
#include "common/thin/superblock.h"

namespace snapsync {
namespace {

// Reading a busy pool without a metadata snapshot: commits come in between.
// About ten seconds in all.
constexpr int kUnheldAttempts = 60;
// Of these, how often damage may be a torn read.
constexpr int kUnheldDamageAttempts = 10;
constexpr std::chrono::milliseconds kPauseStep{20};
constexpr std::chrono::milliseconds kPauseMax{200};

using Read = std::function<absl::Status(PoolView&)>;

absl::Status ReadAtRest(const MetadataSource& source, const Read& read) {
  SNAPSYNC_ASSIGN_OR_RETURN(const auto reader, OpenMetadata(source.path));
  SNAPSYNC_ASSIGN_OR_RETURN(PoolView view,
                            PoolView::Open(*reader, source.held_root));
  return read(view);
}

// The devices that `view` has found are the same now.
absl::Status ConfirmUnchanged(MetadataReader& reader, const PoolView& view) {
  SNAPSYNC_ASSIGN_OR_RETURN(PoolView now, PoolView::OpenUnheld(reader));
  for (const auto& [id, device] : view.found()) {
    SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<ThinDevice> found,
                              now.FindDevice(id));
    if (found != device) {
      return Error(Reason::kBusy,
                   absl::StrCat(reader.name(), ": thin device ", id,
                                " changed while it was read; try again when "
                                "nobody writes to it"));
    }
  }
  return absl::OkStatus();
}

// Runs `attempt` until it fails for a reason that another try can't mend.
absl::Status RetryTorn(const std::function<absl::Status()>& attempt) {
  absl::Status status;
  int damaged = 0;
  for (int tries = 0; tries < kUnheldAttempts; ++tries) {
    if (tries > 0) {
      std::this_thread::sleep_for(std::min(kPauseMax, kPauseStep * tries));
    }
    status = attempt();
    if (status.ok()) return status;
    const Reason reason = ReasonOf(status);
    if (reason == Reason::kIo && ++damaged < kUnheldDamageAttempts) continue;
    if (reason != Reason::kBusy) return status;
  }
  return status;
}

// Whether the metadata snapshot `held` is not there any more. Its blocks are
// reused after a release.
absl::StatusOr<bool> IsReleased(MetadataReader& reader, uint64_t held_root,
                                const Superblock& held) {
  absl::StatusOr<Superblock> live;
  SNAPSYNC_RETURN_IF_ERROR(RetryTorn([&] {
    live = ReadSuperblock(reader, false);
    return live.status();
  }));
  if (live->held_root != held_root) return true;
  SNAPSYNC_ASSIGN_OR_RETURN(const Superblock now, ReadSuperblock(reader, true));
  return now.block != held_root || now.time != held.time ||
         now.data_mapping_root != held.data_mapping_root ||
         now.device_details_root != held.device_details_root;
}

// Whether it is certain that `pool` has no metadata snapshot: what the kernel
// could not commit may be on the disk nevertheless.
bool HoldsNone(const PoolTarget& pool) {
  const absl::StatusOr<PoolStatus> status = ReadPoolStatus(pool);
  return status.ok() && !status->failed && !status->held_root;
}

// Through a metadata snapshot that lies at `held_root`. It must be there still
// at the end.
absl::Status ReadHeld(const MetadataSource& source, const PoolStatus& status,
                      uint64_t held_root, const Read& read) {
  SNAPSYNC_ASSIGN_OR_RETURN(const auto reader, OpenMetadata(source.path));
  SNAPSYNC_ASSIGN_OR_RETURN(PoolView view, PoolView::Open(*reader, true));
  view.set_status(status);
  absl::Status result;
  if (view.superblock().block == held_root) result = read(view);
  SNAPSYNC_ASSIGN_OR_RETURN(const bool released,
                            IsReleased(*reader, held_root, view.superblock()));
  if (!released) return result;
  return Error(
      Reason::kBusy,
      absl::StrCat(source.path, ": the metadata snapshot at block ", held_root,
                   " was released by somebody else while it was read; "
                   "try again"));
}

absl::Status ReadUnheld(const MetadataSource& source, const PoolTarget& pool,
                        const Read& read) {
  SNAPSYNC_ASSIGN_OR_RETURN(const auto reader, OpenMetadata(source.path));
  return RetryTorn([&]() -> absl::Status {
    SNAPSYNC_ASSIGN_OR_RETURN(PoolStatus status, ReadPoolStatus(pool));
    SNAPSYNC_ASSIGN_OR_RETURN(PoolView view, PoolView::OpenUnheld(*reader));
    view.set_status(std::move(status));
    SNAPSYNC_RETURN_IF_ERROR(read(view));
    // Until it is certain: a device that went away in between may have given
    // its blocks to others.
    absl::Status unchanged;
    for (int tries = 0; tries < kUnheldAttempts; ++tries) {
      unchanged = ConfirmUnchanged(*reader, view);
      if (unchanged.ok()) break;
      std::this_thread::sleep_for(kPauseStep);
    }
    return unchanged;
  });
}

absl::Status ReadLive(const MetadataSource& source, const PoolTarget& pool,
                      const Read& read) {
  if (source.held_root) {
    SNAPSYNC_ASSIGN_OR_RETURN(const PoolStatus status, ReadPoolStatus(pool));
    return ReadHeld(source, status, status.held_root.value_or(0), read);
  }
  absl::StatusOr<std::unique_ptr<MetadataSnapshot>> snapshot =
      MetadataSnapshot::Take(pool, source.state_directory);
  if (!snapshot.ok()) {
    const Reason reason = ReasonOf(snapshot.status());
    if (reason != Reason::kBusy && reason != Reason::kTargetUnsuitable) {
      return snapshot.status();
    }
    Log(Severity::kInfo, absl::StrCat(std::string(MessageOf(snapshot.status())),
                                      "; reading without a metadata snapshot"));
    return ReadUnheld(source, pool, read);
  }
  SNAPSYNC_ASSIGN_OR_RETURN(const PoolStatus status, ReadPoolStatus(pool));
  SNAPSYNC_RETURN_IF_ERROR(
      ReadHeld(source, status, (*snapshot)->held_root(), read));
  return (*snapshot)->Release();
}

}  // namespace

// A file that is locked while a metadata snapshot of ours is held, and says
// which. Written before the snapshot is taken: whoever gets the lock and finds
// a note knows that its writer is dead.
class MetadataSnapshot::Note {
 public:
  static absl::StatusOr<std::unique_ptr<Note>> Lock(
      const PoolTarget& pool, const std::string& state_directory) {
    if (state_directory.empty()) {
      return Error(Reason::kConfiguration,
                   "a live pool needs a state directory for the note on its "
                   "metadata snapshot");
    }
    SNAPSYNC_RETURN_IF_ERROR(MakeFolder(state_directory));
    std::string name =
        pool.device.uuid.empty() ? pool.device.name : pool.device.uuid;
    for (char& character : name) {
      if (character == '/') character = '_';
    }
    auto note = std::make_unique<Note>();
    note->path_ = absl::StrCat(state_directory, "/metadata-snapshot-", name);
    note->fd_.Reset(::open(note->path_.c_str(),
                           O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!note->fd_.valid()) return PosixError(errno, note->path_);
    if (::flock(note->fd_.get(), LOCK_EX | LOCK_NB) != 0) {
      return PosixError(errno == EWOULDBLOCK ? EBUSY : errno,
                        absl::StrCat(note->path_,
                                     ": another process holds the "
                                     "metadata snapshot"));
    }
    SNAPSYNC_RETURN_IF_ERROR(SyncFolder(state_directory));
    return note;
  }

  // Whether the note of a dead process speaks of the metadata snapshot `held`.
  bool Describes(const Superblock& held) const {
    char text[kBytes + 1] = {};
    if (::pread(fd_.get(), text, kBytes, 0) <= 0) return false;
    std::istringstream words(text);
    std::string title;
    std::string block;
    uint32_t time = 0;
    uint64_t transaction = 0;
    words >> title >> block >> time >> transaction;
    // "-": died between writing the note and learning the block.
    return !words.fail() && title == kTitle &&
           (block == "-" || block == absl::StrCat(held.block)) &&
           time == held.time && transaction == held.transaction_id;
  }

  // `held_root` 0: about to be taken.
  absl::Status Write(uint64_t held_root, const Superblock& superblock) {
    return Put(absl::StrCat(std::string(kTitle), " ",
                            held_root == 0 ? "-" : absl::StrCat(held_root), " ",
                            superblock.time, " ", superblock.transaction_id,
                            " process ", ::getpid(), " "));
  }

  absl::Status Clear() { return Put(""); }

 private:
  static constexpr std::string_view kTitle = "snapsync-metadata-snapshot";
  static constexpr size_t kBytes = 128;  // filled up with spaces

  // Over what is there, in one write of far less than a sector: whoever dies
  // leaves the old note or the new one.
  absl::Status Put(std::string text) {
    text.resize(kBytes - 1, ' ');
    text += '\n';
    if (::pwrite(fd_.get(), text.data(), text.size(), 0) !=
            static_cast<ssize_t>(text.size()) ||
        ::fsync(fd_.get()) != 0) {
      return PosixError(errno, absl::StrCat(path_,
                                            ": can't write the note on "
                                            "the metadata snapshot"));
    }
    return absl::OkStatus();
  }

  std::string path_;
  UniqueFd fd_;
};

MetadataSnapshot::MetadataSnapshot(PoolTarget pool, std::unique_ptr<Note> note,
                                   uint64_t held_root)
    : pool_(std::move(pool)), note_(std::move(note)), held_root_(held_root) {}

MetadataSnapshot::~MetadataSnapshot() {
  const absl::Status status = Release();
  if (!status.ok()) Log(Severity::kError, MessageOf(status));
}

absl::StatusOr<std::unique_ptr<MetadataSnapshot>> MetadataSnapshot::Take(
    const PoolTarget& pool, const std::string& state_directory) {
  SNAPSYNC_ASSIGN_OR_RETURN(auto note, Note::Lock(pool, state_directory));
  SNAPSYNC_ASSIGN_OR_RETURN(const auto reader,
                            OpenMetadata(pool.metadata.Path()));
  SNAPSYNC_ASSIGN_OR_RETURN(PoolStatus status, ReadPoolStatus(pool));
  if (status.held_root) {
    SNAPSYNC_ASSIGN_OR_RETURN(const Superblock held,
                              ReadSuperblock(*reader, true));
    if (held.block != *status.held_root || !note->Describes(held)) {
      return Error(Reason::kBusy,
                   absl::StrCat("pool ", pool.device.name,
                                ": somebody else holds its metadata snapshot "
                                "(block ",
                                *status.held_root,
                                "); it is released by `dmsetup message ",
                                pool.device.name, " 0 release_metadata_snap`"));
    }
    Log(Severity::kWarning,
        absl::StrCat("pool ", pool.device.name,
                     ": releasing the metadata "
                     "snapshot (block ",
                     held.block, ") that an interrupted run left behind"));
    SNAPSYNC_RETURN_IF_ERROR(ReleaseMetadataSnapshot(pool));
  }
  absl::StatusOr<Superblock> superblock;
  SNAPSYNC_RETURN_IF_ERROR(RetryTorn([&] {
    superblock = ReadSuperblock(*reader, false);
    return superblock.status();
  }));
  SNAPSYNC_RETURN_IF_ERROR(note->Write(0, *superblock));
  if (const absl::Status taken = ReserveMetadataSnapshot(pool); !taken.ok()) {
    if (ReasonOf(taken) == Reason::kBusy || HoldsNone(pool)) {
      SNAPSYNC_RETURN_IF_ERROR(note->Clear());
    }
    return taken;
  }
  // From here on it is released whatever happens.
  std::unique_ptr<MetadataSnapshot> snapshot(
      new MetadataSnapshot(pool, std::move(note), 0));
  SNAPSYNC_ASSIGN_OR_RETURN(const Superblock held,
                            ReadSuperblock(*reader, true));
  SNAPSYNC_RETURN_IF_ERROR(snapshot->note_->Write(held.block, held));
  snapshot->held_root_ = held.block;
  return snapshot;
}

absl::Status MetadataSnapshot::Release() {
  if (!taken_) return absl::OkStatus();
  taken_ = false;
  if (const absl::Status released = ReleaseMetadataSnapshot(pool_);
      !released.ok()) {
    // The note stays: the next run tries again.
    return Annotate(released, "the metadata snapshot was not released");
  }
  return note_->Clear();
}

absl::Status WithPoolView(const MetadataSource& source, const Read& read) {
  SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<DeviceNumber> number,
                            BlockDeviceNumber(source.path));
  if (!number) return ReadAtRest(source, read);
  SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<PoolTarget> pool,
                            FindPoolOfMetadata(*number));
  if (!pool) {
    SNAPSYNC_RETURN_IF_ERROR(ReadAtRest(source, read));
    SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<PoolTarget> activated,
                              FindPoolOfMetadata(*number));
    if (!activated) return absl::OkStatus();
    return Error(Reason::kBusy,
                 absl::StrCat(source.path, ": pool ", activated->device.name,
                              " was activated while its metadata was read; try "
                              "again"));
  }
  const absl::Status status = ReadLive(source, *pool, read);
  // Damage is believed when a second metadata snapshot shows it too.
  if (status.ok() || ReasonOf(status) != Reason::kIo) return status;
  return ReadLive(source, *pool, read);
}

}  // namespace snapsync
