// SPDX-License-Identifier: Apache-2.0
#include "agent/manifest.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "common/base/crc32c.h"
#include "common/base/digest.h"
#include "common/base/endian.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "common/block/zeroes.h"

namespace snapsync {
namespace {

constexpr uint32_t kManifestMagic = 0x4D504E53;  // "SNPM"
constexpr uint32_t kManifestVersion = 1;
constexpr size_t kManifestHeadChecked = 32;
constexpr size_t kManifestHeadBytes = kManifestHeadChecked + sizeof(uint32_t);
constexpr uint64_t kSectorsAt = 4096;
constexpr uint64_t kSectorCells = 63;
// Sectors that are read or written at a time.
constexpr uint64_t kRunSectors = 512;

uint64_t SectorsOf(uint64_t size) {
  return (CellsOf(size) + kSectorCells - 1) / kSectorCells;
}

uint64_t FileBytes(uint64_t size) {
  return kSectorsAt + SectorsOf(size) * kSectorBytes;
}

uint64_t First8(const Checksum128& checksum) {
  return LoadLittle<uint64_t>(checksum.data());
}

uint64_t ChecksumOf(uint64_t number, std::span<const std::byte> sector) {
  Xxh3 hash;
  hash.Update(number).Update(sector.first(kSectorCells * sizeof(CellHash)));
  return First8(hash.Finish());
}

std::byte* CellAt(std::span<std::byte> sector, uint64_t index) {
  return sector.data() + index * sizeof(CellHash);
}

bool IsWhole(uint64_t number, std::span<const std::byte> sector) {
  const auto stored =
      LoadLittle<uint64_t>(sector.data() + kSectorBytes - sizeof(uint64_t));
  return stored == ChecksumOf(number, sector) || IsZero(sector);
}

void Seal(uint64_t number, std::span<std::byte> sector) {
  std::byte* const stored = sector.data() + kSectorBytes - sizeof(uint64_t);
  const bool zero = IsZero(sector.first(kSectorCells * sizeof(CellHash)));
  StoreLittle(stored, zero ? uint64_t{0} : ChecksumOf(number, sector));
}

}  // namespace

CellHash HashOfCell(std::span<const std::byte> data) {
  if (IsZero(data)) return kZeroCell;
  Xxh3 hash;
  const CellHash value = First8(hash.Update(data).Finish());
  return value > kUnknownCell ? value : value + kUnknownCell + 1;
}

absl::StatusOr<std::unique_ptr<Manifest>> Manifest::Create(
    HostFolder& folder, const std::string& name, const Head& head,
    CellHash fill) {
  SNAPSYNC_RETURN_IF_ERROR(folder.Remove(name));
  SNAPSYNC_ASSIGN_OR_RETURN(std::unique_ptr<GrowingFile> file,
                            folder.Create(name));
  SNAPSYNC_RETURN_IF_ERROR(file->Resize(FileBytes(head.size)));
  std::unique_ptr<Manifest> manifest(new Manifest(std::move(file), head));
  if (fill != kZeroCell) {
    SNAPSYNC_RETURN_IF_ERROR(manifest->Fill(0, CellsOf(head.size), fill));
  }
  // What has a head is whole.
  SNAPSYNC_RETURN_IF_ERROR(manifest->Flush());
  SNAPSYNC_RETURN_IF_ERROR(manifest->WriteHead());
  return manifest;
}

absl::StatusOr<std::unique_ptr<Manifest>> Manifest::Open(
    HostFolder& folder, const std::string& name) {
  SNAPSYNC_ASSIGN_OR_RETURN(std::unique_ptr<GrowingFile> file,
                            folder.Open(name, HostFolder::Access::kWrite));
  if (file == nullptr) return nullptr;
  const auto refuse = [&](const std::string& what) {
    return Error(Reason::kVerification, file->name() + ": " + what);
  };
  SNAPSYNC_ASSIGN_OR_RETURN(const uint64_t bytes, file->Size());
  std::array<std::byte, kManifestHeadBytes> head;
  if (bytes < kSectorsAt) return refuse("the manifest is too short");
  SNAPSYNC_RETURN_IF_ERROR(file->ReadCached(0, head));
  if (LoadLittle<uint32_t>(head.data()) != kManifestMagic ||
      LoadLittle<uint32_t>(head.data() + kManifestHeadChecked) !=
          Crc32c(std::span(head).first(kManifestHeadChecked))) {
    return refuse("the manifest's head is damaged");
  }
  const auto version = LoadLittle<uint32_t>(head.data() + 4);
  if (version != kManifestVersion) {
    return refuse("a manifest of version " + std::to_string(version) +
                  ", this agent knows " + std::to_string(kManifestVersion));
  }
  Head known;
  std::memcpy(known.generation.bytes.data(), head.data() + 8,
              known.generation.bytes.size());
  known.size = LoadLittle<uint64_t>(head.data() + 24);
  if (bytes < FileBytes(known.size)) {
    return refuse("the manifest has " + std::to_string(bytes) +
                  " bytes, expected " + std::to_string(FileBytes(known.size)));
  }
  return std::unique_ptr<Manifest>(new Manifest(std::move(file), known));
}

absl::Status Manifest::WriteHead() {
  std::array<std::byte, kManifestHeadBytes> head{};
  StoreLittle(head.data(), kManifestMagic);
  StoreLittle(head.data() + 4, kManifestVersion);
  std::memcpy(head.data() + 8, head_.generation.bytes.data(),
              head_.generation.bytes.size());
  StoreLittle(head.data() + 24, head_.size);
  StoreLittle(head.data() + kManifestHeadChecked,
              Crc32c(std::span(head).first(kManifestHeadChecked)));
  SNAPSYNC_RETURN_IF_ERROR(file_->WriteCached(0, head));
  return Flush();
}

absl::Status Manifest::SetHead(const Head& head) {
  if (head == head_) return absl::OkStatus();
  const Head old = std::exchange(head_, head);
  SNAPSYNC_RETURN_IF_ERROR(file_->Resize(FileBytes(head.size)));
  // The last cell of the smaller one may have been shorter than it is now.
  const uint64_t kept = std::min(old.size, head.size) / kCellBytes;
  if (old.size != head.size && kept < CellsOf(head.size)) {
    SNAPSYNC_RETURN_IF_ERROR(
        Fill(kept, CellsOf(head.size) - kept, kUnknownCell));
    SNAPSYNC_RETURN_IF_ERROR(Flush());
  }
  return WriteHead();
}

absl::Status Manifest::CheckRange(uint64_t first, uint64_t count) const {
  const uint64_t cells = CellsOf(head_.size);
  if (first <= cells && count <= cells - first) return absl::OkStatus();
  return Error(Reason::kIo, file_->name() + ": cells " + std::to_string(first) +
                                " to " + std::to_string(first + count) +
                                " of " + std::to_string(cells));
}

absl::Status Manifest::Read(uint64_t first, std::span<CellHash> cells) {
  SNAPSYNC_RETURN_IF_ERROR(CheckRange(first, cells.size()));
  std::array<std::byte, kSectorBytes> sector;
  for (uint64_t done = 0; done < cells.size();) {
    const uint64_t number = (first + done) / kSectorCells;
    const uint64_t inside = (first + done) % kSectorCells;
    const uint64_t count = std::min(kSectorCells - inside, cells.size() - done);
    SNAPSYNC_RETURN_IF_ERROR(
        file_->ReadCached(kSectorsAt + number * kSectorBytes, sector));
    const std::span<CellHash> out = cells.subspan(done, count);
    if (IsWhole(number, sector)) {
      std::memcpy(out.data(), CellAt(sector, inside), out.size_bytes());
    } else {
      std::fill(out.begin(), out.end(), kUnknownCell);
      ++damaged_sectors_;
    }
    done += count;
  }
  return absl::OkStatus();
}

absl::Status Manifest::Write(uint64_t first, std::span<const CellHash> cells) {
  return Change(first, cells.size(),
                [&](uint64_t index) { return cells[index]; });
}

absl::Status Manifest::Fill(uint64_t first, uint64_t count, CellHash value) {
  return Change(first, count, [&](uint64_t) { return value; });
}

absl::Status Manifest::Change(
    uint64_t first, uint64_t count,
    const std::function<CellHash(uint64_t index)>& value) {
  SNAPSYNC_RETURN_IF_ERROR(CheckRange(first, count));
  std::vector<std::byte> run;
  std::vector<std::byte> before;
  for (uint64_t done = 0; done < count;) {
    const uint64_t number = (first + done) / kSectorCells;
    const uint64_t last = (first + count - 1) / kSectorCells;
    const uint64_t sectors = std::min(kRunSectors, last + 1 - number);
    const uint64_t offset = kSectorsAt + number * kSectorBytes;
    run.resize(sectors * kSectorBytes);
    SNAPSYNC_RETURN_IF_ERROR(file_->ReadCached(offset, run));
    before = run;
    for (uint64_t i = 0; i < sectors; ++i) {
      const auto sector =
          std::span(run).subspan(i * kSectorBytes, kSectorBytes);
      if (!IsWhole(number + i, sector)) {
        for (uint64_t cell = 0; cell < kSectorCells; ++cell) {
          StoreLittle(CellAt(sector, cell), kUnknownCell);
        }
      }
      for (uint64_t cell = (first + done) % kSectorCells;
           cell < kSectorCells && done < count; ++cell, ++done) {
        StoreLittle(CellAt(sector, cell), value(done));
      }
      Seal(number + i, sector);
    }
    if (run != before) {  // zeroes stay holes
      SNAPSYNC_RETURN_IF_ERROR(file_->WriteCached(offset, run));
    }
  }
  return absl::OkStatus();
}

absl::Status Manifest::Flush() { return file_->Flush(); }

}  // namespace snapsync
