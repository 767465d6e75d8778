// SPDX-License-Identifier: Apache-2.0
//
// One file of a chain, seen as a disk: a QCOW2 file whose tables were checked,
// or a raw file at the end of the chain. It knows where the bytes of a range
// are, and decodes compressed clusters; plain ones are read by others.
//
// Offsets and sizes in bytes; ranges of multiples of 512. Thread-safe after
// construction. Errors are kIo and name the file: a table that changed since it
// was checked is checked again, so that nothing worse comes of it.
#ifndef SNAPSYNC_COMMON_QCOW2_LAYER_H_
#define SNAPSYNC_COMMON_QCOW2_LAYER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/aligned_buffer.h"
#include "common/qcow2/cluster.h"
#include "common/qcow2/cluster_decoder.h"
#include "common/qcow2/header.h"
#include "common/qcow2/host_file.h"
#include "common/qcow2/table_reader.h"

namespace snapsync::qcow2 {

// A file and its number among those that were opened for a chain.
struct NumberedFile {
  std::shared_ptr<const HostFile> file;
  uint32_t number = 0;
};

// Bytes of a disk that lie one after the other and are kept alike.
struct Run {
  enum class Kind : uint8_t {
    kUnallocated,  // as the next layer
    kZero,
    kData,        // in a file as they are
    kCompressed,  // part of one compressed cluster
  };

  Kind kind = Kind::kUnallocated;
  uint64_t length = 0;
  uint32_t layer = 0;         // in the chain; set by the chain
  uint32_t file = 0;          // kData: the number of the file
  uint64_t host_offset = 0;   // kData, kCompressed (the stream's first byte)
  uint64_t stream_bytes = 0;  // kCompressed
  uint64_t skip = 0;  // kCompressed: bytes of the cluster before the run

  friend bool operator==(const Run&, const Run&) = default;
};

// What one thread needs for decoding, to be used again.
struct DecoderScratch {
  ClusterDecoder decoder;
  AlignedBuffer stream;
  AlignedBuffer cluster;
  // What `cluster` holds: reads often end within a cluster.
  const void* layer = nullptr;
  uint64_t host_offset = 0;
};

class Layer {
 public:
  // Takes what is checked: call CheckMetadata() first. `data_file` without a
  // file: the data are in the image itself.
  Layer(const Header& header, NumberedFile file, NumberedFile data_file,
        std::unique_ptr<TableReader> tables);
  // A raw file: its last sector is filled with zeroes.
  explicit Layer(NumberedFile file);

  // As a disk.
  uint64_t size() const { return size_; }
  const HostFile& file() const { return *file_.file; }

  // The run that begins at `offset`; it ends at `end` at the latest. Requires
  // offset < end <= size().
  absl::StatusOr<Run> FindRun(uint64_t offset, uint64_t end) const;

  // Fills `out` with a run of kind kCompressed, or the beginning of it.
  absl::Status Decode(const Run& run, DecoderScratch& scratch,
                      std::span<std::byte> out) const;

 private:
  struct Qcow2 {
    Header header;
    std::unique_ptr<TableReader> tables;
    std::unique_ptr<ClusterRules> rules;
  };

  // The run at `offset` within one cluster, or within ranges without L2 table.
  absl::StatusOr<Run> FindOne(uint64_t offset, uint64_t end,
                              TableReader::Cursor& l1,
                              TableReader::Cursor& l2) const;
  absl::StatusOr<Run> FindRangeWithoutTable(uint64_t offset, uint64_t end,
                                            TableReader::Cursor& l1) const;
  Run RunIn(const Cluster& cluster, uint64_t offset, uint64_t end) const;

  const NumberedFile file_;
  const NumberedFile data_file_;
  const uint64_t size_;
  const std::unique_ptr<const Qcow2> qcow2_;  // null: raw
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_LAYER_H_
