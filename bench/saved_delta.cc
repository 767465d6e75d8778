// SPDX-License-Identifier: Apache-2.0
//
// How long the saved mappings of a thin device take to write and to compare
// with, how large they are, and how much memory that takes:
//
//   saved_delta METADATA BASE_ID ID FILE
//
// with the metadata that bench/delta_bench makes. FILE is written, and removed.
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <string>

#include "common/base/status_macros.h"
#include "common/thin/guarded_delta.h"
#include "common/thin/metadata_snapshot.h"
#include "common/thin/saved_delta.h"
#include "common/thin/saved_mappings.h"

namespace snapsync {
namespace {

double Seconds() {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

absl::Status Measure(PoolView& view, uint32_t base_id, uint32_t id,
                     const std::string& path) {
  SNAPSYNC_ASSIGN_OR_RETURN(const ThinDevice base, view.RequireDevice(base_id));
  SNAPSYNC_ASSIGN_OR_RETURN(const ThinDevice snapshot, view.RequireDevice(id));
  DeltaRequest request;
  request.snapshot_id = base_id;
  request.snapshot_size = uint64_t{1} << 40U;
  const BaseRecord record = RecordOf(view, base, request);
  const SavedMappingsName name{Id128::Random(), Id128::Random()};
  const double begin = Seconds();
  SNAPSYNC_ASSIGN_OR_RETURN(MappingsFile file, MappingsFile::Create(path));
  MappingsWriter writer(name, [&file](std::span<const std::byte> bytes) {
    return file.Append(bytes);
  });
  SNAPSYNC_RETURN_IF_ERROR(SaveMappings(view, record, writer));
  SNAPSYNC_RETURN_IF_ERROR(file.Finish());
  const double written = Seconds();
  SNAPSYNC_ASSIGN_OR_RETURN(MappingsReader reader,
                            MappingsReader::OpenFile(path, name));
  SNAPSYNC_ASSIGN_OR_RETURN(
      const TreeDelta found,
      CompareWithSaved(view, record, reader, snapshot, request.snapshot_size));
  const double compared = Seconds();
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  std::cout << record.mapped_blocks << " mappings, "
            << static_cast<double>(writer.bytes_written()) /
                   static_cast<double>(record.mapped_blocks)
            << " bytes each; written in " << written - begin
            << " s, compared in " << compared - written << " s, "
            << found.delta.changed.bytes() << " bytes changed; peak "
            << usage.ru_maxrss / 1024 << " MiB\n";
  return absl::OkStatus();
}

}  // namespace
}  // namespace snapsync

int main(int argc, char** argv) {
  if (argc != 5) {
    std::cerr << "usage: saved_delta METADATA BASE_ID ID FILE\n";
    return 2;
  }
  snapsync::MetadataSource source;
  source.path = argv[1];
  source.state_directory = std::filesystem::temp_directory_path();
  const absl::Status status =
      snapsync::WithPoolView(source, [&](snapsync::PoolView& view) {
        return snapsync::Measure(
            view, static_cast<uint32_t>(std::strtoul(argv[2], nullptr, 10)),
            static_cast<uint32_t>(std::strtoul(argv[3], nullptr, 10)), argv[4]);
      });
  ::unlink(argv[4]);
  if (!status.ok()) std::cerr << status << '\n';
  return status.ok() ? 0 : 1;
}
