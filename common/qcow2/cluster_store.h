// SPDX-License-Identifier: Apache-2.0
//
// The clusters of an image that is being written: each write of a cluster goes
// to a host cluster that nothing durable refers to, so whatever was promised
// stays there until the next promise. Remembers what the journal has to say.
//
// Used by one thread at a time, but for queue().Wait().
#ifndef SNAPSYNC_COMMON_QCOW2_CLUSTER_STORE_H_
#define SNAPSYNC_COMMON_QCOW2_CLUSTER_STORE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/block/block_device.h"
#include "common/block/host_folder.h"
#include "common/qcow2/cluster_decoder.h"
#include "common/qcow2/cluster_map.h"
#include "common/qcow2/compression_line.h"
#include "common/qcow2/geometry.h"
#include "common/qcow2/host_space.h"
#include "common/qcow2/stage_journal.h"
#include "common/qcow2/stream_packer.h"
#include "common/qcow2/write_queue.h"

namespace snapsync::qcow2 {

struct StoreOptions {
  Geometry geometry;
  // Of what is compressed already: the header's.
  uint8_t compression_type = 0;
  // Compress what is written, in that way.
  bool compress = false;
  // Of the queue and the compressor; 0: all in the caller's.
  size_t write_threads = WriteQueue::kThreads;
  size_t compression_threads = 1;
  // What an overlay has not. Null: zeroes.
  BlockReader* backing = nullptr;
};

class ClusterStore {
 public:
  // `file` holds a committed image with the tables `l1`, or a new one. What is
  // passed must outlive it.
  ClusterStore(const StoreOptions& options, GrowingFile* file,
               std::vector<uint64_t> l1, HostSpace space);

  // Before anything else: takes over what `journal` says.
  absl::Status Replay(StageJournal& journal);

  // `data` is a whole cluster.
  absl::Status Put(uint64_t cluster, std::span<const std::byte> data);
  // `count` clusters from `first` on read as zeroes.
  absl::Status Clear(uint64_t first, uint64_t count);
  // Whether it may be anything but zeroes.
  absl::StatusOr<bool> MayHoldData(uint64_t cluster);
  // Where in the file it lies as it is; nullopt: nowhere, or compressed.
  absl::StatusOr<std::optional<uint64_t>> HostOffset(uint64_t cluster);
  // Fills `data`, AlignedBuffer memory, with what the cluster holds by now.
  absl::Status Read(uint64_t cluster, std::span<std::byte> data);

  // Hands all that was put to the queue; the number is for queue().Wait().
  absl::StatusOr<uint64_t> Submit();
  // What changed in the map since the last call.
  std::vector<MapRecord> TakeRecords() { return std::exchange(records_, {}); }

  const Geometry& geometry() const { return options_.geometry; }
  GrowingFile& file() { return *file_; }
  WriteQueue& queue() { return queue_; }
  HostSpace& space() { return space_; }
  ClusterMap& map() { return map_; }

 private:
  // Puts a cluster where it belongs; `packed` empty: as it is.
  absl::Status Place(uint64_t cluster, std::span<const std::byte> whole,
                     std::span<const std::byte> packed);
  absl::Status ReplayOne(const MapRecord& record, ClusterSet& used);
  absl::Status ReadBacking(uint64_t cluster, std::span<std::byte> data);
  absl::Status ReadCompressed(uint64_t entry, std::span<std::byte> data);
  // Nothing of [first, first + count) is still in the compressor.
  absl::Status Settle(uint64_t first, uint64_t count);
  void Forget(uint64_t entry);
  void Remember(uint64_t cluster, uint64_t entry);

  const StoreOptions options_;
  GrowingFile* const file_;
  HostSpace space_;
  WriteQueue queue_;
  ClusterMap map_;
  StreamPacker packer_;
  ClusterDecoder decoder_;
  std::vector<MapRecord> records_;
  std::multiset<uint64_t> compressing_;    // clusters in line_
  std::unique_ptr<CompressionLine> line_;  // null: nothing is compressed
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_CLUSTER_STORE_H_
