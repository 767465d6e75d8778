// SPDX-License-Identifier: Apache-2.0
#include "sender/local_agent_client.h"

#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <future>
#include <utility>
#include <vector>

#include "agent/config.h"
#include "agent/session_registry.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/lvm/lvm.h"
#include "common/thin/pool_control.h"
#include "sender/destination.h"

namespace snapsync {
namespace {

// The peer in the session's record.
constexpr char kPeer[] = "local";

// An inactive volume has no node: LVM knows it by name.
absl::StatusOr<std::string> KindOfMissing(const std::string& path) {
  const absl::StatusOr<LogicalVolumeName> name = ParseVolumePath(path);
  if (path.starts_with("/dev/") && name.ok()) {
    SNAPSYNC_ASSIGN_OR_RETURN(const VolumeGroup group,
                              ReadVolumeGroup(name->group));
    const LogicalVolume* volume = group.FindName(name->name);
    if (volume != nullptr && volume->segment_type == "thin") return "thin";
  }
  if (path.starts_with("/dev/")) {
    return Error(Reason::kTargetUnsuitable,
                 path + " does not exist, or is not active");
  }
  return "file";
}

absl::StatusOr<std::string> KindOf(const std::string& path) {
  struct stat facts {};
  if (::stat(path.c_str(), &facts) != 0) {
    if (errno == ENOENT) return KindOfMissing(path);
    return PosixError(errno, "can't look at " + path);
  }
  if (S_ISREG(facts.st_mode)) return "file";
  if (!S_ISBLK(facts.st_mode)) {
    return Error(Reason::kTargetUnsuitable,
                 path + " is neither a block device nor a file");
  }
  SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<DeviceNumber> number,
                            BlockDeviceNumber(path));
  SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<ThinTarget> thin,
                            FindThin(*number));
  return thin && ParseLvmUuid(thin->device.uuid) ? "thin" : "block";
}

// A path as the name of one folder.
std::string FolderName(const std::string& path) {
  std::string name;
  for (const char c : path) {
    if (c == '/') {
      name += "%2F";
    } else if (c == '%') {
      name += "%25";
    } else {
      name += c;
    }
  }
  return name;
}

class LocalSegmentStream final : public SegmentStream {
 public:
  LocalSegmentStream(std::shared_ptr<Session> session,
                     std::unique_ptr<Session::Segment> segment)
      : session_(std::move(session)), segment_(std::move(segment)) {}

  bool Write(const Chunk& chunk) override {
    if (status_.ok()) status_ = segment_->Add(chunk);
    return status_.ok();
  }

  // In a thread, as an agent does: the next segment is read meanwhile.
  void CloseWrites() override {
    flushed_ =
        std::async(std::launch::async, [this] { return segment_->Finish(); });
  }

  absl::StatusOr<SegmentAck> Finish() override {
    SNAPSYNC_RETURN_IF_ERROR(status_);
    if (!flushed_.valid()) CloseWrites();
    return flushed_.get();
  }

 private:
  const std::shared_ptr<Session> session_;  // outlives the segment
  const std::unique_ptr<Session::Segment> segment_;
  absl::Status status_;
  std::future<absl::StatusOr<SegmentAck>> flushed_;  // its end waits
};

class LocalAgentClient final : public AgentClient {
 public:
  LocalAgentClient(std::unique_ptr<SessionRegistry> registry, Replica* replica)
      : registry_(std::move(registry)), replica_(replica) {}

  absl::StatusOr<VolumeState> Describe(const std::string& /*volume*/) override {
    SNAPSYNC_RETURN_IF_ERROR(CheckNotCancelled());
    return replica_->Describe();
  }

  absl::StatusOr<SessionGrant> OpenSession(
      const SessionRequest& request) override {
    SNAPSYNC_RETURN_IF_ERROR(CheckNotCancelled());
    return replica_->Open(request, kPeer);
  }

  absl::StatusOr<std::unique_ptr<SegmentStream>> StartSegment(
      const std::string& /*volume*/, const Id128& session,
      uint64_t first) override {
    SNAPSYNC_RETURN_IF_ERROR(CheckNotCancelled());
    SNAPSYNC_ASSIGN_OR_RETURN(std::shared_ptr<Session> found,
                              replica_->Find(session, kPeer));
    SNAPSYNC_ASSIGN_OR_RETURN(std::unique_ptr<Session::Segment> segment,
                              found->StartSegment(first));
    return std::make_unique<LocalSegmentStream>(std::move(found),
                                                std::move(segment));
  }

  absl::StatusOr<Receipt> CommitSession(const CommitRequest& request) override {
    SNAPSYNC_RETURN_IF_ERROR(CheckNotCancelled());
    return replica_->Commit(request, kPeer);
  }

  absl::Status AbortSession(const std::string& /*volume*/) override {
    SNAPSYNC_RETURN_IF_ERROR(CheckNotCancelled());
    return replica_->Abort(kPeer);
  }

  absl::Status TakeOver(const std::string& /*volume*/) override {
    return replica_->TakeOver(kPeer);
  }

  absl::StatusOr<Id128> HashBlocks(const HashRequest& request,
                                   const HashSink& sink) override {
    SNAPSYNC_ASSIGN_OR_RETURN(const HashStart start,
                              replica_->StartHash(request, kPeer));
    for (uint64_t first_block = request.first_block;;) {
      SNAPSYNC_RETURN_IF_ERROR(CheckNotCancelled());
      SNAPSYNC_ASSIGN_OR_RETURN(const std::vector<Digest256> digests,
                                start.hasher->Next());
      if (digests.empty()) return start.generation;
      SNAPSYNC_RETURN_IF_ERROR(sink(start.generation, first_block, digests));
      first_block += digests.size();
    }
  }

  absl::StatusOr<Changes> ChangedSince(const ChangesRequest& request) override {
    SNAPSYNC_RETURN_IF_ERROR(CheckNotCancelled());
    return replica_->ChangedSince(request, kPeer);
  }

  void Cancel() override { cancelled_ = true; }

 private:
  absl::Status CheckNotCancelled() const {
    if (!cancelled_) return absl::OkStatus();
    return Error(Reason::kConnection, "the sync was cancelled");
  }

  const std::unique_ptr<SessionRegistry> registry_;
  Replica* const replica_;  // registry_'s
  std::atomic<bool> cancelled_{false};
};

}  // namespace

absl::StatusOr<std::unique_ptr<AgentClient>> MakeLocalAgentClient(
    const std::string& state_directory, const std::string& path,
    bool is_image) {
  AgentConfig config;
  config.state_directory = state_directory + "/local";
  const std::filesystem::path stable = StablePath(path);
  config.state_directory += "/" + FolderName(stable.string());
  VolumeConfig volume;
  volume.name = stable.filename().string();
  volume.path = path;
  volume.kind = "qcow2";
  if (!is_image) {
    SNAPSYNC_ASSIGN_OR_RETURN(volume.kind, KindOf(path));
  }
  config.volumes.push_back(volume);
  config.manifests = false;  // no agent is there that could scrub
  SNAPSYNC_ASSIGN_OR_RETURN(std::unique_ptr<SessionRegistry> registry,
                            SessionRegistry::Create(config));
  SNAPSYNC_ASSIGN_OR_RETURN(Replica* const replica,
                            registry->Find(volume.name));
  return std::make_unique<LocalAgentClient>(std::move(registry), replica);
}

}  // namespace snapsync
