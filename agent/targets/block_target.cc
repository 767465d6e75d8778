// SPDX-License-Identifier: Apache-2.0
//
// A plain block device, written in place: between the first write and the
// commit it is neither the old generation nor the new one, and the caller's
// record says so. There is no metadata that tells of foreign writes, so a seal
// is what the device is and a sample of what is on it: it finds another or a
// newly formatted device, not a single changed block. Verification reads all.
#include <utility>

#include "agent/targets/named_values.h"
#include "agent/targets/target.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/block/content_sample.h"
#include "common/block/device_holders.h"
#include "common/block/device_identity.h"
#include "common/block/file_device.h"
#include "common/thin/pool_control.h"

namespace snapsync {
namespace {

constexpr char kBlockStage[] = "block-stage";
constexpr char kBlockSeal[] = "block-seal";

// Of any length, and kept in a short text.
std::string Shortened(const std::string& identity) {
  return Hex(Xxh3().Update(std::as_bytes(std::span(identity))).Finish());
}

class PlainBlockTarget final : public Target {
 public:
  explicit PlainBlockTarget(std::string path) : path_(std::move(path)) {}

  bool in_place() const override { return true; }

  absl::StatusOr<TargetFacts> Inspect() override {
    TargetFacts facts;
    SNAPSYNC_ASSIGN_OR_RETURN(facts.identity, IdentifyDevice(path_));
    facts.place = PlaceOf(path_);
    SNAPSYNC_RETURN_IF_ERROR(CheckFree());
    SNAPSYNC_ASSIGN_OR_RETURN(const auto reader, OpenFileReader(path_));
    facts.size = reader->size();
    SNAPSYNC_ASSIGN_OR_RETURN(const ContentSample sample,
                              SampleContent(*reader));
    SNAPSYNC_ASSIGN_OR_RETURN(const std::string signature,
                              FindSignature(path_));
    facts.blank = sample.all_zero && signature.empty();
    facts.blank_by_sample = facts.blank;
    return facts;
  }

  absl::Status CheckSeal(const std::string& seal) override {
    SNAPSYNC_ASSIGN_OR_RETURN(const NamedValues values,
                              NamedValues::Parse(kBlockSeal, seal));
    SNAPSYNC_RETURN_IF_ERROR(CheckDevice(values));
    SNAPSYNC_ASSIGN_OR_RETURN(const std::string now, MakeSeal());
    if (now == seal) return absl::OkStatus();
    return Error(Reason::kBaseMismatch,
                 path_ +
                     " is not what the last sync left: its size or a sample "
                     "of its contents is another; it was written to");
  }

  absl::StatusOr<std::unique_ptr<BlockReader>> OpenReader() override {
    SNAPSYNC_RETURN_IF_ERROR(CheckFree());
    return OpenFileReader(path_);
  }

  absl::StatusOr<std::string> CreateStage(uint64_t size,
                                          bool /*from_base*/) override {
    SNAPSYNC_ASSIGN_OR_RETURN(const auto reader, OpenFileReader(path_));
    if (size > reader->size()) {
      return Error(Reason::kTargetUnsuitable,
                   path_ + " has " + std::to_string(reader->size()) +
                       " bytes, the source " + std::to_string(size));
    }
    SNAPSYNC_ASSIGN_OR_RETURN(const std::string identity,
                              IdentifyDevice(path_));
    return NamedValues(kBlockStage)
        .Set("device", Shortened(identity))
        .ToString();
  }

  absl::StatusOr<std::unique_ptr<BlockWriter>> OpenStage(
      const std::string& token) override {
    SNAPSYNC_ASSIGN_OR_RETURN(const NamedValues values,
                              NamedValues::Parse(kBlockStage, token));
    SNAPSYNC_RETURN_IF_ERROR(CheckDevice(values));
    SNAPSYNC_RETURN_IF_ERROR(CheckFree());
    WriterOptions options;
    options.exclusive = true;
    return OpenFileWriter(path_, options);
  }

  // The base seal can't hold any more: the writes went to the device itself.
  absl::StatusOr<std::string> Commit(
      const std::string& token, uint64_t /*number*/,
      const Id128& /*generation*/, const std::string& /*base_seal*/) override {
    SNAPSYNC_ASSIGN_OR_RETURN(const NamedValues values,
                              NamedValues::Parse(kBlockStage, token));
    SNAPSYNC_RETURN_IF_ERROR(CheckDevice(values));
    {
      SNAPSYNC_ASSIGN_OR_RETURN(const auto writer,
                                OpenFileWriter(path_, {.exclusive = true}));
      SNAPSYNC_RETURN_IF_ERROR(writer->Flush());
    }
    return MakeSeal();
  }

  absl::Status RemoveStage(const std::string& /*token*/) override {
    return absl::OkStatus();
  }

  absl::Status Prune(uint64_t /*number*/, uint64_t /*keep*/) override {
    return absl::OkStatus();
  }

 private:
  // Our own writer may be open.
  absl::Status CheckFree() const {
    SNAPSYNC_ASSIGN_OR_RETURN(std::string holder, DescribeHolders(path_));
    SNAPSYNC_ASSIGN_OR_RETURN(const bool open_here, IsOpenHere(path_));
    if (holder.empty() && !open_here) {
      // What the kernel has open shows in device-mapper's count only.
      SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<DeviceNumber> number,
                                BlockDeviceNumber(path_));
      if (number.has_value()) {
        SNAPSYNC_ASSIGN_OR_RETURN(const std::optional<int> count,
                                  ReadOpenCount(*number));
        if (count.value_or(0) > 0) {
          holder = "open " + std::to_string(*count) +
                   " time(s), by the kernel or where this process can't see";
        }
      }
    }
    if (holder.empty()) return absl::OkStatus();
    return Error(Reason::kBusy,
                 path_ + " is " + holder + "; try again when it is free");
  }

  absl::Status CheckDevice(const NamedValues& values) const {
    SNAPSYNC_ASSIGN_OR_RETURN(const std::string identity,
                              IdentifyDevice(path_));
    if (values.Text("device") == Shortened(identity)) return absl::OkStatus();
    return Error(Reason::kBaseMismatch, path_ + " is another device (" +
                                            identity +
                                            ") than the one that was synced");
  }

  absl::StatusOr<std::string> MakeSeal() const {
    SNAPSYNC_ASSIGN_OR_RETURN(const std::string identity,
                              IdentifyDevice(path_));
    SNAPSYNC_ASSIGN_OR_RETURN(const auto reader, OpenFileReader(path_));
    SNAPSYNC_ASSIGN_OR_RETURN(const ContentSample sample,
                              SampleContent(*reader));
    return NamedValues(kBlockSeal)
        .Set("device", Shortened(identity))
        .Set("size", reader->size())
        .Set("sample", Hex(sample.fingerprint))
        .ToString();
  }

  const std::string path_;
};

}  // namespace

std::unique_ptr<Target> MakeBlockTarget(const std::string& path) {
  return std::make_unique<PlainBlockTarget>(path);
}

}  // namespace snapsync
