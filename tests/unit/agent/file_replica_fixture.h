// SPDX-License-Identifier: Apache-2.0
//
// A replica in a file, with all that an agent keeps of it on a disk, and a
// sender of chunks to it.
#ifndef SNAPSYNC_TESTS_UNIT_AGENT_FILE_REPLICA_FIXTURE_H_
#define SNAPSYNC_TESTS_UNIT_AGENT_FILE_REPLICA_FIXTURE_H_

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "agent/replica.h"
#include "agent/scrub.h"
#include "common/base/status_macros.h"
#include "tests/testing/random.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync {

inline constexpr uint64_t kSize = 20 * kCellBytes + 4096;

class FileReplicaTest : public testing::Test {
 protected:
  FileReplicaTest() : contents_(kSize) {
    random_.Fill(contents_);
    Start();
  }

  void Start() {
    replica_.reset();
    auto store = OpenFileSessionStore(folder_ / "state");
    ASSERT_THAT(store, IsOk());
    store_ = *std::move(store);
    ReplicaOptions options;
    options.volume = "vol";
    options.kind = "file";
    options.manifest = manifest_;
    options.threads = false;
    options.unix_seconds = [] { return int64_t{1}; };
    replica_ = std::make_unique<Replica>(options, MakeFileTarget(path()),
                                         store_.get());
    ASSERT_THAT(replica_->Recover(), IsOk());
  }

  std::string path() const { return folder_ / "vol.raw"; }
  std::string manifest() const {
    return folder_ / "state/targets/vol.manifest";
  }

  // Sends `extents` of contents_, a chunk for each; `until` chunks of them.
  absl::StatusOr<SegmentAck> Send(const SessionGrant& grant,
                                  const std::vector<Extent>& extents,
                                  uint64_t until) {
    SNAPSYNC_ASSIGN_OR_RETURN(const auto session,
                              replica_->Find(grant.session, "nas1"));
    SNAPSYNC_ASSIGN_OR_RETURN(const auto segment,
                              session->StartSegment(grant.watermark));
    for (uint64_t i = grant.watermark; i < until; ++i) {
      Chunk chunk;
      chunk.index = i;
      chunk.pieces = {{extents[i].offset, extents[i].length, PieceKind::kData}};
      chunk.data =
          std::span(contents_).subspan(extents[i].offset, extents[i].length);
      chunk.checksum = ChecksumOf(chunk);
      SNAPSYNC_RETURN_IF_ERROR(segment->Add(chunk));
    }
    return segment->Finish();
  }
  SessionRequest Request(const Id128& base, size_t chunks) {
    SessionRequest request;
    request.volume = "vol";
    request.replication = "nightly";
    request.source = "nas1:/dev/vg/vol";
    request.base = base;
    request.generation = random_.Id();
    request.source_size = kSize;
    random_.Fill(request.plan_digest);
    request.chunk_count = chunks;
    request.covers_all = base.none();
    return request;
  }
  absl::Status Commit(const SessionGrant& grant, const SegmentAck& ack) {
    return replica_
        ->Commit({"vol", grant.session, ack.watermark, ack.digest}, "nas1")
        .status();
  }
  Id128 Sync(const Id128& base, const std::vector<Extent>& extents) {
    const SessionRequest request = Request(base, extents.size());
    const auto grant = replica_->Open(request, "nas1");
    EXPECT_THAT(grant, IsOk());
    const auto ack = Send(*grant, extents, extents.size());
    EXPECT_THAT(ack, IsOk());
    EXPECT_THAT(Commit(*grant, *ack), IsOk());
    return request.generation;
  }
  Id128 FirstSync() {
    return Sync(
        {}, {{0, 10 * kCellBytes}, {10 * kCellBytes, kSize - 10 * kCellBytes}});
  }
  void Renew(Extent extent) {
    random_.Fill(std::span(contents_).subspan(extent.offset, extent.length));
  }

  ScrubProgress Scrub(const ScrubOptions& options = {}) {
    damaged_.clear();
    const auto done =
        RunScrub(*replica_, options, [this](const ScrubProgress& progress) {
          damaged_.insert(damaged_.end(), progress.damaged.begin(),
                          progress.damaged.end());
          return absl::OkStatus();
        });
    EXPECT_THAT(done, IsOk());
    return done.value_or(ScrubProgress{});
  }

  // A bit of a file, by nobody: what a disk does.
  static void FlipIn(const std::string& path, uint64_t bit) {
    const auto times = std::filesystem::last_write_time(path);
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekg(static_cast<std::streamoff>(bit / 8));
    const int old = file.get();
    file.seekp(static_cast<std::streamoff>(bit / 8));
    file.put(static_cast<char>(old ^ (1 << (bit % 8))));
    file.close();
    EXPECT_TRUE(file.good());
    std::filesystem::last_write_time(path, times);
  }

  Random random_{3};
  TemporaryFolder folder_{TemporaryFolder::InMemory()};
  std::vector<std::byte> contents_;
  bool manifest_ = true;
  std::unique_ptr<SessionStore> store_;
  std::unique_ptr<Replica> replica_;
  std::vector<Extent> damaged_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_TESTS_UNIT_AGENT_FILE_REPLICA_FIXTURE_H_
