// SPDX-License-Identifier: Apache-2.0
//
// The contents of a volume of any size of which only a few sectors are not
// zero: cheap to copy and to compare. Sectors are kept as numbers; a
// SectorPool knows the bytes behind a number. Used by one thread at a time.
#ifndef SNAPSYNC_TESTS_TESTING_SPARSE_IMAGE_H_
#define SNAPSYNC_TESTS_TESTING_SPARSE_IMAGE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>

#include "common/base/units.h"
#include "common/block/block_device.h"
#include "common/block/extent.h"

namespace snapsync {

// Gives each contents of a sector that occurs a number; 0 is all zeroes.
class SectorPool {
 public:
  using Sector = std::array<std::byte, kSectorBytes>;

  uint64_t NumberOf(std::span<const std::byte> sector);
  // Requires: number != 0, given by NumberOf().
  const Sector& BytesOf(uint64_t number) const { return sectors_.at(number); }

 private:
  std::unordered_map<uint64_t, Sector> sectors_;  // by hash
};

class SparseImage {
 public:
  // 0: zeroes.
  void Set(uint64_t sector, uint64_t number);
  uint64_t At(uint64_t sector) const;
  // Extents in bytes, of whole sectors.
  void Zero(Extent extent);
  void Read(const SectorPool& pool, uint64_t offset,
            std::span<std::byte> out) const;

  // The first sector in `extent` in which the two differ.
  std::optional<uint64_t> FirstDifference(const SparseImage& other,
                                          Extent extent) const;
  friend bool operator==(const SparseImage&, const SparseImage&) = default;

  // The sectors that are not zero.
  const std::map<uint64_t, uint64_t>& sectors() const { return sectors_; }

 private:
  std::map<uint64_t, uint64_t> sectors_;
};

// Reads an image. Image and pool must outlive it.
class SparseImageReader final : public BlockReader {
 public:
  SparseImageReader(std::string name, uint64_t size, const SparseImage* image,
                    const SectorPool* pool)
      : name_(std::move(name)), size_(size), image_(image), pool_(pool) {}

  const std::string& name() const override { return name_; }
  uint64_t size() const override { return size_; }
  absl::Status Read(std::span<const ReadOperation> operations) override;

 private:
  const std::string name_;
  const uint64_t size_;
  const SparseImage* const image_;
  const SectorPool* const pool_;
};

}  // namespace snapsync

#endif  // SNAPSYNC_TESTS_TESTING_SPARSE_IMAGE_H_
