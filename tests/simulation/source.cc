// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/source.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "common/base/units.h"

namespace snapsync::simulation {
namespace {

// Sectors around a place that are written to.
constexpr uint64_t kPlaceSectors = 48;

}  // namespace

Source::Source(Random* random, SectorPool* pool)
    : random_(random), pool_(pool) {
  // Large volumes are cut into chunks by what is gone, small ones hardly.
  size_ = random->Percent(70) ? random->Between(4, 48) * kGiB
                              : random->Between(1, 64) * kMiB;
  if (random->Percent(30)) size_ -= random->Below(200) * kSectorBytes;
  constexpr std::array<uint64_t, 5> kBlocks = {512, 512, 4 * kKiB, 4 * kKiB,
                                               64 * kKiB};
  block_ = kBlocks[random->Below(kBlocks.size())];
  const uint64_t sectors = size_ / kSectorBytes;
  const uint64_t places = random->Between(2, 10);
  for (uint64_t i = 0; i < places; ++i) {
    places_.push_back(random->Below(sectors - kPlaceSectors));
  }
  places_.push_back(sectors - kPlaceSectors);
  // A few volumes hold more data than a segment keeps in memory.
  if (size_ > kGiB && random->Percent(4)) {
    block_ = kZeroGrainBytes;
    run_grains_ = random->Between(40, 200);
    run_start_ = random->Below(size_ / kZeroGrainBytes - run_grains_);
  }
}

uint64_t Source::NewSector() {
  std::array<std::byte, kSectorBytes> bytes{};
  random_->Fill(std::span(bytes).first(16));
  return pool_->NumberOf(bytes);
}

uint64_t Source::SomeSector() {
  return places_[random_->Below(places_.size())] +
         random_->Below(kPlaceSectors);
}

void Source::Change() {
  for (uint64_t i = random_->Between(1, 10); i > 0; --i) {
    const uint64_t first = SomeSector();
    const uint64_t end =
        std::min(first + random_->Between(1, 6), size_ / kSectorBytes);
    if (random_->Percent(75)) {
      for (uint64_t at = first; at < end; ++at) image_.Set(at, NewSector());
    } else if (random_->Percent(70)) {
      image_.Zero({first * kSectorBytes, (end - first) * kSectorBytes});
    } else {
      const uint64_t place =
          places_[random_->Below(places_.size())] * kSectorBytes;
      image_.Zero({place, kPlaceSectors * kSectorBytes});
    }
  }
  for (uint64_t i = 0; i < run_grains_; ++i) {
    image_.Set((run_start_ + i) * (kZeroGrainBytes / kSectorBytes),
               NewSector());
  }
  // There is always something to send.
  image_.Set(SomeSector(), NewSector());
}

Extent Source::BlockOf(uint64_t sector) const {
  const uint64_t start = sector * kSectorBytes / block_ * block_;
  return {start, std::min(block_, size_ - start)};
}

std::unique_ptr<Plan> Source::MakePlan(const SparseImage* base,
                                       bool covers_all) {
  // By start: whether the block changed, and whether it holds anything now.
  struct Block {
    bool changed = false;
    bool used = false;
  };
  std::map<uint64_t, Block> blocks;
  for (const auto& [sector, number] : image_.sectors()) {
    Block& block = blocks[BlockOf(sector).offset];
    block.used = true;
    if (base == nullptr || base->At(sector) != number) block.changed = true;
  }
  if (base != nullptr) {
    for (const auto& [sector, number] : base->sectors()) {
      if (image_.At(sector) != number) {
        blocks[BlockOf(sector).offset].changed = true;
      }
    }
  }
  const double surplus = random_->Percent(50) ? 0 : 20;
  if (surplus > 0) blocks[BlockOf(SomeSector()).offset].changed = true;
  ExtentList changed;  // as data
  ExtentList kept;     // must not be touched
  ExtentList gone;     // must be zeroed
  for (const auto& [start, block] : blocks) {
    const Extent extent{start, std::min(block_, size_ - start)};
    const bool changed_here = block.changed || random_->Percent(surplus);
    if (changed_here && (block.used || random_->Percent(30))) {
      changed.Append(extent);
    } else if (changed_here) {
      gone.Append(extent);
    } else {
      kept.Append(extent);
    }
  }
  // What is zero anyway may be told as gone.
  const double told = covers_all ? 100 : base == nullptr ? 0 : 50;
  const ExtentList rest = Union(changed, kept).ComplementIn(size_);
  ExtentList zero;
  for (const Extent& extent : rest.extents()) {
    if (random_->Percent(told)) zero.Append(extent);
  }
  return std::make_unique<Plan>(size_, std::move(changed), Union(gone, zero));
}

const Generation* Source::Snapshot(const Generation* base, bool covers_all) {
  auto generation = std::make_unique<Generation>();
  generation->id = random_->Id();
  if (base != nullptr) generation->base = base->id;
  generation->image = image_;
  generation->plan =
      MakePlan(base == nullptr ? nullptr : &base->image, covers_all);
  generation->covers_all = covers_all;
  generations_.push_back(std::move(generation));
  return generations_.back().get();
}

const Generation* Source::SnapshotCompared(
    const std::function<absl::StatusOr<HashDelta>(BlockReader& snapshot)>&
        compare) {
  SparseImageReader reader("source", size_, &image_, pool_);
  absl::StatusOr<HashDelta> delta = compare(reader);
  if (!delta.ok()) return nullptr;
  auto generation = std::make_unique<Generation>();
  generation->id = random_->Id();
  generation->base = delta->base;
  generation->image = image_;
  generation->plan = std::make_unique<Plan>(size_, std::move(delta->changed),
                                            std::move(delta->gone));
  generations_.push_back(std::move(generation));
  return generations_.back().get();
}

const Generation* Source::Find(const Id128& id) const {
  for (const auto& generation : generations_) {
    if (generation->id == id) return generation.get();
  }
  return nullptr;
}

}  // namespace snapsync::simulation
