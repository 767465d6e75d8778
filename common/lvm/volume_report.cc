// SPDX-License-Identifier: Apache-2.0
//
// What LVM says of its volumes: names, paths and the report of `lvs`.
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "common/base/error.h"
#include "common/base/first_line.h"
#include "common/base/status_macros.h"
#include "common/lvm/lvm.h"
#include "nlohmann/json.hpp"

namespace snapsync {
namespace {

using Json = nlohmann::json;

// lvmsystemid(7) and lvm(8): names that lvcreate refuses.
constexpr std::array<std::string_view, 2> kReservedPrefixes = {"snapshot",
                                                               "pvmove"};
constexpr std::array<std::string_view, 17> kReservedParts = {
    "_cdata",  "_cmeta", "_corig",   "_cpool",  "_cvol",  "_iorig",
    "_mimage", "_mlog",  "_pmspare", "_rimage", "_rmeta", "_tdata",
    "_tmeta",  "_vdata", "_vorigin", "_wcorig", "_imeta"};

// What volumes and groups may be called alike.
bool HasValidLetters(std::string_view name) {
  if (name.empty() || name.size() > 127 || name.front() == '-' || name == "." ||
      name == "..") {
    return false;
  }
  return std::all_of(name.begin(), name.end(), [](char letter) {
    return (letter >= 'a' && letter <= 'z') ||
           (letter >= 'A' && letter <= 'Z') ||
           (letter >= '0' && letter <= '9') ||
           std::string_view("+_.-").find(letter) != std::string_view::npos;
  });
}

std::string WithoutDashes(const std::string& uuid) {
  std::string text = uuid;
  std::erase(text, '-');
  return text;
}

// "vg--a-lv" is volume "lv" in group "vg-a".
std::optional<LogicalVolumeName> SplitMapperName(std::string_view text) {
  LogicalVolumeName name;
  std::string* part = &name.group;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '-') {
      *part += text[i];
    } else if (i + 1 < text.size() && text[i + 1] == '-') {
      *part += '-';
      ++i;
    } else if (part == &name.group) {
      part = &name.name;
    } else {
      return std::nullopt;  // the name of an inner layer, as "vg-pool-tpool"
    }
  }
  return name;
}

// The volume behind a device node, whatever its path.
std::optional<LogicalVolumeName> NameOfDeviceNode(const std::string& path) {
  struct stat facts {};
  if (::stat(path.c_str(), &facts) != 0 || !S_ISBLK(facts.st_mode)) {
    return std::nullopt;
  }
  const std::string folder = "/sys/dev/block/" +
                             std::to_string(major(facts.st_rdev)) + ":" +
                             std::to_string(minor(facts.st_rdev)) + "/dm/";
  if (!FirstLine(folder + "uuid").starts_with("LVM-")) return std::nullopt;
  return SplitMapperName(FirstLine(folder + "name"));
}

// One row of the report, each field a string as `lvs` gives them.
class Row {
 public:
  Row(const std::string& group, const Json& row) : group_(group), row_(row) {}

  std::string Text(const char* field) {
    const auto found = row_.find(field);
    if (found == row_.end() || !found->is_string()) {
      Fail(field, "is missing");
      return "";
    }
    return found->get<std::string>();
  }

  std::string RequiredText(const char* field) {
    std::string text = Text(field);
    if (text.empty()) Fail(field, "is empty");
    return text;
  }

  uint64_t Number(const char* field) {
    const std::string text = Text(field);
    uint64_t number = 0;
    if (!absl::SimpleAtoi(text, &number)) Fail(field, "is \"" + text + "\"");
    return number;
  }

  // nullopt: empty.
  std::optional<uint64_t> OptionalNumber(const char* field) {
    if (Text(field).empty()) return std::nullopt;
    return Number(field);
  }

  const absl::Status& status() const { return status_; }

 private:
  void Fail(const char* field, const std::string& what) {
    if (!status_.ok()) return;
    status_ = Error(Reason::kIo, "the report of lvs on volume group " + group_ +
                                     ": field " + field + " " + what);
  }

  const std::string& group_;
  const Json& row_;
  absl::Status status_;
};

absl::StatusOr<LogicalVolume> ParseRow(const std::string& group,
                                       const Json& json) {
  Row row(group, json);
  LogicalVolume volume;
  volume.group = row.RequiredText("vg_name");
  volume.group_uuid = row.RequiredText("vg_uuid");
  volume.name = row.RequiredText("lv_name");
  volume.uuid = row.RequiredText("lv_uuid");
  if (volume.name.size() > 2 && volume.name.front() == '[' &&
      volume.name.back() == ']') {
    volume.hidden = true;
    volume.name = volume.name.substr(1, volume.name.size() - 2);
  }
  volume.device_path = row.Text("lv_dm_path");
  volume.segment_type = row.RequiredText("segtype");
  volume.size = row.Number("lv_size");
  volume.active = row.Text("lv_active") == "active";
  // lv_permissions tells of an active volume's table, which may be read-only
  // for other reasons; the second letter of lv_attr tells of the metadata.
  const std::string attributes = row.Text("lv_attr");
  if (row.status().ok() && attributes.size() < 10) {
    return Error(Reason::kIo, "the report of lvs on volume group " + group +
                                  ": field lv_attr is \"" + attributes + "\"");
  }
  volume.writable = attributes.size() > 1 && attributes[1] == 'w';
  volume.skips_activation = !row.Text("lv_skip_activation").empty();
  volume.merging = !row.Text("lv_merging").empty();
  for (const auto tag :
       absl::StrSplit(row.Text("lv_tags"), ',', absl::SkipEmpty())) {
    volume.tags.emplace_back(tag.data(), tag.size());
  }
  volume.pool = row.Text("pool_lv");
  volume.pool_uuid = row.Text("pool_lv_uuid");
  volume.origin = row.Text("origin");
  for (std::string* name : {&volume.pool, &volume.origin}) {
    if (name->size() > 2 && name->front() == '[') {
      *name = name->substr(1, name->size() - 2);
    }
  }
  const std::optional<uint64_t> thin_id = row.OptionalNumber("thin_id");
  volume.transaction_id = row.OptionalNumber("transaction_id").value_or(0);
  volume.chunk_size = row.Number("chunk_size");
  SNAPSYNC_RETURN_IF_ERROR(row.status());
  if (thin_id.has_value()) {
    if (*thin_id >= 1U << 24 || volume.pool_uuid.empty()) {
      return Error(Reason::kIo, "the report of lvs on volume group " + group +
                                    ": " + volume.name + " has thin id " +
                                    std::to_string(*thin_id) + " in pool \"" +
                                    volume.pool + "\"");
    }
    volume.thin_id = static_cast<uint32_t>(*thin_id);
  }
  return volume;
}

absl::Status Unexpected(const std::string& group, const std::string& what) {
  return Error(Reason::kIo, "the report of lvs on volume group " + group +
                                " can't be understood: " + what);
}

}  // namespace

std::string LogicalVolume::DeviceMapperUuid() const {
  return "LVM-" + WithoutDashes(group_uuid) + WithoutDashes(uuid);
}

bool LogicalVolume::HasTag(std::string_view tag) const {
  return std::find(tags.begin(), tags.end(), tag) != tags.end();
}

const LogicalVolume* VolumeGroup::FindName(std::string_view wanted) const {
  for (const LogicalVolume& volume : volumes) {
    if (volume.name == wanted) return &volume;
  }
  return nullptr;
}

const LogicalVolume* VolumeGroup::FindUuid(std::string_view uuid) const {
  for (const LogicalVolume& volume : volumes) {
    if (volume.uuid == uuid) return &volume;
  }
  return nullptr;
}

const LogicalVolume* VolumeGroup::FindThinId(std::string_view pool_uuid,
                                             uint32_t thin_id) const {
  for (const LogicalVolume& volume : volumes) {
    if (volume.thin_id == thin_id && volume.pool_uuid == pool_uuid) {
      return &volume;
    }
  }
  return nullptr;
}

bool IsValidVolumeName(std::string_view name) {
  if (!HasValidLetters(name)) return false;
  for (const std::string_view prefix : kReservedPrefixes) {
    if (name.starts_with(prefix)) return false;
  }
  return std::none_of(kReservedParts.begin(), kReservedParts.end(),
                      [name](std::string_view part) {
                        return name.find(part) != std::string_view::npos;
                      });
}

absl::StatusOr<LogicalVolumeName> ParseVolumePath(const std::string& path) {
  std::optional<LogicalVolumeName> name = NameOfDeviceNode(path);
  if (!name.has_value()) {
    std::string_view rest = path;
    if (rest.starts_with("/dev/mapper/")) {
      rest.remove_prefix(std::string_view("/dev/mapper/").size());
      if (rest.find('/') == std::string_view::npos) {
        name = SplitMapperName(rest);
      }
    } else {
      if (rest.starts_with("/dev/")) {
        rest.remove_prefix(std::string_view("/dev/").size());
      }
      const size_t slash = rest.find('/');
      if (slash != std::string_view::npos) {
        name = LogicalVolumeName{std::string(rest.substr(0, slash)),
                                 std::string(rest.substr(slash + 1))};
      }
    }
  }
  if (!name.has_value() || !IsValidVolumeName(name->name) ||
      !HasValidLetters(name->group)) {
    return Error(Reason::kTargetUnsuitable,
                 path +
                     " is no logical volume; they are called /dev/GROUP/NAME "
                     "(lvs lists them)");
  }
  return *name;
}

absl::StatusOr<VolumeGroup> ParseVolumeReport(const std::string& group,
                                              std::string_view json) {
  const Json report = Json::parse(json, nullptr, false);
  if (report.is_discarded() || !report.is_object()) {
    return Unexpected(group, "no JSON");
  }
  const auto reports = report.find("report");
  if (reports == report.end() || !reports->is_array() || reports->size() != 1 ||
      !reports->front().is_object()) {
    return Unexpected(group, "not one \"report\"");
  }
  const auto rows = reports->front().find("lv");
  if (rows == reports->front().end() || !rows->is_array()) {
    return Unexpected(group, "no list \"lv\"");
  }
  VolumeGroup result;
  result.name = group;
  for (const Json& row : *rows) {
    if (!row.is_object()) return Unexpected(group, "a row is no object");
    SNAPSYNC_ASSIGN_OR_RETURN(LogicalVolume volume, ParseRow(group, row));
    if (volume.group != group) {
      return Unexpected(group, "it speaks of group " + volume.group);
    }
    // A volume of several segments has a row for each; thin ones have one.
    if (result.FindUuid(volume.uuid) == nullptr) {
      result.volumes.push_back(std::move(volume));
    }
  }
  return result;
}

}  // namespace snapsync
