// SPDX-License-Identifier: Apache-2.0
//
// A whole QCOW2 image: opened, checked, walked over, and read. An input is the
// file; every file that it names is the same file again.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "common/base/unique_fd.h"
#include "common/base/units.h"
#include "common/qcow2/chain.h"

namespace snapsync::qcow2 {
namespace {

// Of decompressed data, for one input.
constexpr uint64_t kMaxReadBytes = 8 * kMiB;
constexpr int kMaxRuns = 20000;

class OneFile final : public FileSource {
 public:
  OneFile(std::span<const uint8_t> bytes) {
    static const UniqueFd memory(::memfd_create("image", MFD_CLOEXEC));
    const auto size = static_cast<off_t>(bytes.size());
    if (::ftruncate(memory.get(), 0) != 0 ||
        ::ftruncate(memory.get(), size) != 0 ||
        ::pwrite(memory.get(), bytes.data(), bytes.size(), 0) != size) {
      std::abort();
    }
    file_.file =
        HostFile::Make(UniqueFd(::dup(memory.get())), "input", bytes.size());
  }

  const HostFile& file() const { return *file_.file; }
  absl::StatusOr<NumberedFile> OpenImage() override { return file_; }
  absl::StatusOr<NumberedFile> OpenNamed(Role, uint32_t,
                                         const std::string& name) override {
    if (name.empty() || name.find('\0') != std::string::npos) std::abort();
    return file_;
  }

 private:
  NumberedFile file_;
};

void Require(bool condition) {
  if (!condition) std::abort();
}

// What holds data, as FindData() says it, is what FindRun() says of each place.
void ReadAll(const Chain& chain, const HostFile& file) {
  DecoderScratch scratch;
  std::vector<std::byte> out;
  uint64_t read = 0;
  int runs = 0;
  std::vector<Extent> extents;
  const auto end = chain.FindData(0, 1000, extents);
  Require(!end.ok() || *end <= chain.size());
  for (const Extent& extent : extents) {
    Require(extent.length > 0 && extent.end() <= chain.size());
    for (uint64_t at = extent.offset; at < extent.end() && runs < kMaxRuns;
         ++runs) {
      const auto run = chain.FindRun(at, extent.end());
      if (!run.ok()) return;
      Require(run->length > 0 && run->length <= extent.end() - at);
      Require(run->kind == Run::Kind::kData ||
              run->kind == Run::Kind::kCompressed);
      const uint64_t sectors = (file.size() + 511) / 512 * 512;
      Require(run->host_offset < sectors);
      if (run->kind == Run::Kind::kData) {
        Require(run->length <= sectors - run->host_offset);
      } else if (read < kMaxReadBytes) {
        out.resize(run->length);
        chain.Decode(*run, scratch, out).IgnoreError();
        read += run->length;
      }
      at += run->length;
    }
  }
}

}  // namespace
}  // namespace snapsync::qcow2

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace snapsync::qcow2;
  OneFile source({data, size});
  ChainOptions options;
  options.allow_corrupt = true;
  options.unrecorded_backing_format = "qcow2";
  const auto chain = Chain::Open(source, options, [] {});
  if (chain.ok()) ReadAll(**chain, source.file());
  return 0;
}
