// SPDX-License-Identifier: Apache-2.0
//
// What L1 and L2 entries say, checked against the format's rules and the sizes
// of the files: reserved bits, alignment, and that the bytes that are needed
// are there. A file that ends before them is refused, since reading zeroes
// instead (as QEMU does) loses data silently.
//
// Offsets and sizes in bytes. Errors are kIo and name the file, where the
// entry is, and its value. Thread-safe after construction.
#ifndef SNAPSYNC_COMMON_QCOW2_CLUSTER_H_
#define SNAPSYNC_COMMON_QCOW2_CLUSTER_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/qcow2/header.h"
#include "common/qcow2/host_file.h"

namespace snapsync::qcow2 {

inline constexpr unsigned kSubclusters = 32;

// What an L2 entry says of a cluster of the disk. Without extended L2 entries
// the subclusters are all alike. A subcluster that neither has data nor reads
// as zeroes is not allocated: it reads as the backing file.
struct Cluster {
  uint32_t data = 0;    // bit i: subcluster i has data at its place in the host
                        // cluster
  uint32_t zeroes = 0;  // bit i: it reads as zeroes
  bool compressed = false;  // then data and zeroes are 0
  // The host cluster, which there may be without data (preallocated); of a
  // compressed one the first byte of the stream. 0: there is none, except in an
  // external data file.
  uint64_t host_offset = 0;
  uint64_t stream_bytes = 0;  // of a compressed one, at most
};

class ClusterRules {
 public:
  // `data_file` is null where there is no external one. What is passed must
  // outlive it.
  ClusterRules(const Header& header, const HostFile& file,
               const HostFile* data_file);

  // The offset of the L2 table, 0 where there is none. `at` is where in the
  // file the entry is, `index` its number.
  absl::StatusOr<uint64_t> ParseL1Entry(uint64_t entry, uint64_t at,
                                        uint64_t index) const;

  // Of the cluster at `guest_offset` of the disk, a multiple of the cluster
  // size. `bytes` has header.l2_entry_bytes().
  absl::StatusOr<Cluster> ParseL2Entry(const std::byte* bytes, uint64_t at,
                                       uint64_t guest_offset) const;

  // The bytes that an L2 table of L1 entry `index` needs at its beginning:
  // where the disk ends, it may be cut.
  uint64_t NeededL2Bytes(uint64_t index) const;

 private:
  struct Where {
    uint64_t entry;
    uint64_t at;
    uint64_t guest_offset;
  };

  absl::StatusOr<Cluster> ParseCompressed(const Where& where) const;
  absl::Status CheckHostCluster(const Where& where, uint64_t host_offset,
                                uint32_t data) const;
  absl::Status Damaged(const Where& where, const std::string& why) const;

  const Header& header_;
  const HostFile& file_;
  const HostFile* const data_file_;
};

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_CLUSTER_H_
