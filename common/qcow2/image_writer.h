// SPDX-License-Identifier: Apache-2.0
//
// An image that is being written, as a BlockWriter: the disk that a guest will
// see once it is committed. Writes are taken in any order and of any sectors;
// data go to the file in the order in which they come, in large batches behind
// the caller's back.
//
// After a Flush() that returned OK all that was written before it is found
// again by another ImageWriter that opens the same file and journal, whatever
// happened in between. Without a journal nothing survives but the committed
// image.
//
// Thread-safe. Write() and Zero() may return before anything is on the disk: an
// error is then returned by a later call, by the next Flush() at the latest.
#ifndef SNAPSYNC_COMMON_QCOW2_IMAGE_WRITER_H_
#define SNAPSYNC_COMMON_QCOW2_IMAGE_WRITER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "common/block/block_device.h"
#include "common/block/host_folder.h"
#include "common/qcow2/cluster_store.h"
#include "common/qcow2/partial_clusters.h"
#include "common/qcow2/stage_journal.h"

namespace snapsync::qcow2 {

class ImageWriter final : public BlockWriter {
 public:
  // What the file holds before the first write.
  struct Base {
    std::vector<uint64_t>
        l1;             // offsets of tables; as many as the new size needs
    uint64_t size = 0;  // of the disk, bytes
    ClusterSet free;    // host clusters that are not in use
    uint64_t end = 1;   // host clusters of the file
  };

  // `size` in bytes, a multiple of 512. `journal` may be null; else what it
  // says is there already.
  static absl::StatusOr<std::unique_ptr<ImageWriter>> Open(
      const StoreOptions& options, uint64_t size, Base base,
      std::unique_ptr<GrowingFile> file, std::unique_ptr<StageJournal> journal);

  // Of a new file: no table anywhere.
  static Base NewFile(const Geometry& geometry, uint64_t size);

  const std::string& name() const override { return name_; }
  uint64_t size() const override { return size_; }
  absl::Status Write(std::span<const WriteOperation> operations) override;
  absl::Status Zero(Extent extent) override;
  absl::Status Flush() override;
  absl::Status ReadBack(std::span<const ReadOperation> operations) override;
  bool copies() const override { return true; }

  // Flushes, and hands the clusters over to be committed. Nothing may be
  // written afterwards.
  absl::Status Finish(
      const std::function<absl::Status(ClusterStore& store)>& commit);

  // Ends the right to write: waits for what is on its way, closes the file, and
  // lets all later calls fail. For when somebody may still hold this object.
  void Retire();

 private:
  ImageWriter(const StoreOptions& options, uint64_t size, Base base,
              std::unique_ptr<GrowingFile> file,
              std::unique_ptr<StageJournal> journal);

  // What the base has behind the end of a smaller disk must not come back when
  // it grows again.
  absl::Status CutOff() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What lies in the file as it is goes to `plain`, to be read at once.
  absl::Status ReadOne(const ReadOperation& operation,
                       std::vector<ReadOperation>& plain)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status WriteOne(const WriteOperation& operation)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status ZeroExtent(Extent extent) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status ZeroPart(uint64_t cluster, uint64_t offset, uint64_t length)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Gives it to the store, filled up with what was there before.
  absl::Status ClosePartial(uint64_t cluster)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status FlushLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(flushing_);
  absl::Status Fail(const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckRange(uint64_t offset, uint64_t length) const;

  // Constant after construction.
  const std::string name_;
  const uint64_t size_;
  const Geometry geometry_;

  // Held by one Flush() or ReadBack() at a time, while writes go on. Taken
  // before mutex_.
  Mutex flushing_ ABSL_ACQUIRED_BEFORE(mutex_);
  Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  PartialClusters partial_ ABSL_GUARDED_BY(mutex_);

  // Null after Retire(), which takes both mutexes: flushing and reading back
  // use them with flushing_ held, the others with mutex_.
  std::unique_ptr<GrowingFile> file_;
  std::unique_ptr<StageJournal> journal_;
  std::unique_ptr<ClusterStore> store_;  // last: its threads use the file
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_IMAGE_WRITER_H_
