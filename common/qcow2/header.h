// SPDX-License-Identifier: Apache-2.0
//
// What the header of a QCOW2 file and its extensions say, checked. Everything
// in a Header is within the limits of the format and, where it speaks of tables
// that are needed, within the file; what the tables themselves say is not
// looked at here (metadata_walk.h).
//
// Offsets and sizes in bytes. The input is hostile: nothing is allocated from a
// field before it is bounded by the bytes that there are. Errors name the file,
// the field with its offset and value, and what to do: kIo for a damaged
// header, kTargetUnsuitable for one that is sound but not supported
// (encryption, unknown features, version 1).
//
// Whether a corrupt image, a backing file or an external data file is accepted
// is the caller's policy, not the parser's.
//
// Thread-safe: pure functions.
#ifndef SNAPSYNC_COMMON_QCOW2_HEADER_H_
#define SNAPSYNC_COMMON_QCOW2_HEADER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/qcow2/format.h"
#include "common/qcow2/identity.h"

namespace snapsync::qcow2 {

// Header and extensions lie in the first cluster: at most so many bytes.
inline constexpr size_t kMaxHeaderAreaBytes = size_t{1} << kMaxClusterBits;

// A name that the image gives a feature bit.
struct FeatureName {
  uint8_t type = 0;  // kFeatureIncompatible, 1 compatible, kFeatureAutoclear
  uint8_t bit = 0;
  std::string name;  // printable ASCII, whatever the file holds

  friend bool operator==(const FeatureName&, const FeatureName&) = default;
};

// Where the directory of persistent bitmaps is, if they are in force.
struct BitmapDirectory {
  uint32_t count = 0;
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

struct Header {
  uint32_t version = 0;  // 2 or 3
  uint32_t cluster_bits = 0;
  uint64_t size = 0;  // of the disk, as the field says it: see disk_size()
  uint64_t l1_offset = 0;
  uint32_t l1_entries = 0;  // that the table has; see needed_l1_entries()
  uint64_t refcount_table_offset = 0;
  uint32_t refcount_table_clusters = 0;
  uint32_t refcount_order = 4;  // 1 << refcount_order bits each
  uint64_t snapshots_offset = 0;
  uint32_t snapshots = 0;
  uint64_t incompatible_features = 0;
  uint64_t compatible_features = 0;
  uint64_t autoclear_features = 0;
  uint32_t header_length = kVersion2HeaderBytes;
  uint8_t compression_type = kCompressionDeflate;

  // The file that has what this one has not. Empty: there is none.
  std::string backing_name;
  std::string backing_format;  // "raw", "qcow2"; empty: not recorded
  // Not empty if and only if has_data_file().
  std::string data_file_name;
  std::vector<FeatureName> feature_names;
  std::optional<BitmapDirectory> bitmaps;

  // What the export says of itself, if it is one, and where in the file the
  // data of that extension begin.
  std::optional<Identity> identity;
  size_t identity_data_at = 0;
  // The file is what the export left: its untouched bit stands and its seal
  // holds. False without an identity.
  bool untouched = false;

  bool dirty() const { return Has(kIncompatibleDirty); }
  bool corrupt() const { return Has(kIncompatibleCorrupt); }
  bool has_data_file() const { return Has(kIncompatibleDataFile); }
  bool extended_l2() const { return Has(kIncompatibleExtendedL2); }

  uint64_t cluster_size() const { return uint64_t{1} << cluster_bits; }
  // What a guest sees: QEMU leaves out a last sector that is not whole.
  uint64_t disk_size() const { return size & ~uint64_t{511}; }
  uint64_t l2_entry_bytes() const { return extended_l2() ? 16 : 8; }
  uint64_t l2_entries() const { return cluster_size() / l2_entry_bytes(); }
  // The bytes of the disk that one L1 entry speaks of.
  uint64_t l1_entry_reach() const { return cluster_size() * l2_entries(); }
  // The L1 entries that speak of the disk; there may be more of them.
  uint64_t needed_l1_entries() const;

 private:
  bool Has(uint64_t feature) const {
    return (incompatible_features & feature) != 0;
  }
};

// The header of the file `name`, which has `file_size` bytes. `first_bytes` are
// its first min(file_size, kMaxHeaderAreaBytes) bytes.
absl::StatusOr<Header> ParseHeader(std::span<const std::byte> first_bytes,
                                   uint64_t file_size, const std::string& name);

// Text of a file for an error or a log: what is not printable ASCII becomes
// "\x1b", and what is longer than `limit` is cut.
std::string Printable(std::string_view text, size_t limit = 200);

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_HEADER_H_
