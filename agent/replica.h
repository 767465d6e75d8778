// SPDX-License-Identifier: Apache-2.0
//
// One volume of the agent and its state machine: opens sessions into it,
// commits them, and after a crash goes on where the record says
// (docs/reliability.md has the states and the order of every write).
//
//   EMPTY ──┐                        ┌─────── commit ────────┐
//   AT(g) ──┴─ open ─▶ FILLING(g→h) ─┴▶ COMMITTING(g→h) ─▶ AT(h)
//                        (TORN(g→h) when the target is written in place)
//
// Thread-safe: opening, committing and describing exclude each other; segments
// run beside them.
#ifndef SNAPSYNC_AGENT_REPLICA_H_
#define SNAPSYNC_AGENT_REPLICA_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "agent/hasher.h"
#include "agent/scrub.h"
#include "agent/session.h"
#include "agent/session_store.h"
#include "agent/targets/target.h"
#include "common/base/mutex.h"
#include "common/transfer/session_protocol.h"

namespace snapsync {

struct ReplicaOptions {
  std::string volume;
  std::string kind;
  uint64_t keep = 3;     // generation snapshots
  bool threads = true;   // hash and write with threads of its own
  bool manifest = true;  // keep what scrub compares with
  std::function<int64_t()> unix_seconds;  // the wall clock, for people
};

// A comparison that a sender asked for.
struct HashStart {
  // What is hashed: the base to name in the plan. None: only for a dry run.
  Id128 generation;
  std::shared_ptr<Hasher> hasher;
};

// A generation to be sent elsewhere.
struct SendSource {
  std::string path;  // of its snapshot
  uint64_t number = 0;
  uint64_t size = 0;           // bytes that are meant: the volume may be larger
  bool from_promoted = false;  // what a promoted volume holds now
  bool is_image = false;       // QCOW2; `size` is in its header
};

class Replica {
 public:
  // `store` must outlive it.
  Replica(ReplicaOptions options, std::unique_ptr<Target> target,
          SessionStore* store);

  // Finishes a commit that a crash interrupted. Called once before the others;
  // an error is logged by the caller and met again by the next Open().
  absl::Status Recover();

  // See session_protocol.h. `peer` is the name in the peer's certificate.
  //   kBaseMismatch       the base is not what the target holds, or somebody
  //                       wrote to the target since
  //   kTargetUnsuitable   size, kind, another device, or not empty
  //   kBusy               held by somebody, or another session is under way
  absl::StatusOr<SessionGrant> Open(const SessionRequest& request,
                                    const std::string& peer);

  // Begins to hash what the target holds. It is generation g if the record says
  // so and the seal holds; else, if the operator agreed, it is made one: by an
  // empty session, so that at the next Open() the seal proves that nobody wrote
  // in between. Errors as Open(); kBaseMismatch for a torn target, and for a
  // blank one that is no generation: there is nothing to compare with.
  //
  // The target is open as long as the hasher lives, but not longer than until
  // the next Open() or StartHash() by the same peer, or a Commit().
  absl::StatusOr<HashStart> StartHash(const HashRequest& request,
                                      const std::string& peer);

  // What the target changed since the newest candidate of which it has a
  // snapshot. What it holds becomes a generation first, as for StartHash(), and
  // with the same errors; kBaseMismatch also when nothing is in common, or a
  // guard refuses (docs/delta.md).
  absl::StatusOr<Changes> ChangedSince(const ChangesRequest& request,
                                       const std::string& peer);

  // What a sender reads to send generation `number` (0: what the volume holds
  // now) elsewhere: its snapshot. kTargetUnsuitable when there is none;
  // kBaseMismatch when it was written to without having been promoted. What a
  // promoted volume holds becomes a generation first, but not in a dry run.
  absl::StatusOr<SendSource> PrepareSend(uint64_t number, bool dry_run);

  // The next `bytes` of a scrub, from progress.next on; all is done when that
  // is progress.size. kTargetUnsuitable when there is no whole generation, or
  // no manifest is kept; kBaseMismatch when somebody wrote to a target that has
  // no snapshot of it; kBusy as for StartHash().
  absl::Status ScrubStep(uint64_t bytes, ScrubProgress& progress);
  // Scrubs will record all anew.
  absl::Status ForgetManifest();

  // From now on the volume is written to here, and receives nothing.
  absl::Status Promote();
  // It receives again. kBaseMismatch when it was written to since its newest
  // generation: that would be lost.
  absl::Status EndPromotion();

  // The session that `id` was granted for, as long as no later Open() made it
  // void.
  absl::StatusOr<std::shared_ptr<Session>> Find(const Id128& id,
                                                const std::string& peer);

  absl::StatusOr<Receipt> Commit(const CommitRequest& request,
                                 const std::string& peer);

  // Gives the open session up: the stage goes, the target is what it was. A
  // torn target stays torn.
  absl::Status Abort(const std::string& peer);

  // Ends what any sender is doing: it can neither write nor commit nor go on
  // comparing, and is told so (kBusy). What it had made durable stays, as after
  // a broken connection.
  absl::Status TakeOver(const std::string& peer);

  // To be called every now and then. Finishes a commit that could not be
  // finished when it was asked for: the volume may be out of sight until then.
  // Gives up an open session in which nothing has moved for `limit` (0: never),
  // as far as this object has seen. A torn target keeps its session.
  absl::Status Tend(std::chrono::steady_clock::time_point now,
                    std::chrono::seconds limit);

  // Finishes a commit that was interrupted, first.
  absl::StatusOr<VolumeState> Describe();

 private:
  absl::StatusOr<TargetRecord> LoadRecord()
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckOpen(const SessionRequest& request,
                         const TargetFacts& facts, TargetRecord& record)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<SessionGrant> Begin(const SessionRequest& request,
                                     const std::string& peer,
                                     TargetRecord record)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<SessionGrant> Resume(const TargetRecord& record, bool verify)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The generation that is compared: made of what the target holds, if that
  // is none and the request allows it; none: only in a dry run.
  absl::StatusOr<Id128> BeginComparing(const HashRequest& request,
                                       const std::string& peer)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<Receipt> Adopt(const HashRequest& request,
                                const std::string& peer,
                                const TargetFacts& facts, TargetRecord record)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status EndHashing(const std::string& peer)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status EndSession(TargetRecord& record)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<Receipt> FinishCommit(TargetRecord record)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Removes what is not needed after a commit.
  void TidyUp(const TargetRecord& record) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The manifest is a help: what goes wrong with it is logged. Null: none.
  std::unique_ptr<ManifestLog> OpenManifestLog(const SessionRecord& session,
                                               uint64_t watermark)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Makes the manifest that of the generation that `session` brought, or
  // removes it.
  void KeepManifest(const SessionRecord& session)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RemoveManifestLog() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A new one, in which nothing is known, if there is none.
  absl::StatusOr<std::unique_ptr<Manifest>> ManifestOf(
      const GenerationRecord& generation, ScrubProgress& progress)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckReceives(const TargetRecord& record) const;
  absl::Status BeingWritten(const TargetRecord& record)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether `id` is the session that is open, by this peer.
  absl::Status CheckLive(const Id128& id, const std::string& peer)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropLive() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropLive(const absl::Status& reason)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Constant after construction.
  const ReplicaOptions options_;
  const std::unique_ptr<Target> target_;
  SessionStore* const store_;

  Mutex mutex_;
  std::shared_ptr<Session> live_ ABSL_GUARDED_BY(mutex_);
  Id128 live_id_ ABSL_GUARDED_BY(mutex_);
  std::string live_peer_ ABSL_GUARDED_BY(mutex_);
  // Sessions that were taken over, and what they are told; the newest last.
  static constexpr size_t kTakenOverKept = 64;
  std::deque<std::pair<Id128, absl::Status>> taken_over_
      ABSL_GUARDED_BY(mutex_);
  // No old generation is left; before the first commit nobody knows.
  bool tidy_ ABSL_GUARDED_BY(mutex_) = false;
  // When Tend() first saw this session at this watermark.
  std::pair<Id128, uint64_t> seen_ ABSL_GUARDED_BY(mutex_);
  std::chrono::steady_clock::time_point seen_at_ ABSL_GUARDED_BY(mutex_);
  std::weak_ptr<Hasher> hashing_ ABSL_GUARDED_BY(mutex_);
  std::string hashing_peer_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace snapsync

#endif  // SNAPSYNC_AGENT_REPLICA_H_
