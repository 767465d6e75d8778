// SPDX-License-Identifier: Apache-2.0
#include "tests/testing/recording_folder.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync {
namespace {

using Kind = FolderChange::Kind;

class RecordedFile final : public GrowingFile {
 public:
  RecordedFile(std::unique_ptr<GrowingFile> file, Recording* recording,
               size_t number)
      : file_(std::move(file)), recording_(recording), number_(number) {}

  const std::string& name() const override { return file_->name(); }
  int descriptor() const override { return file_->descriptor(); }
  absl::StatusOr<uint64_t> Size() override { return file_->Size(); }
  absl::Status Read(std::span<const ReadOperation> operations) override {
    return file_->Read(operations);
  }
  absl::Status ReadCached(uint64_t offset, std::span<std::byte> data) override {
    return file_->ReadCached(offset, data);
  }
  absl::Status Write(std::span<const WriteOperation> operations) override {
    for (const WriteOperation& write : operations) {
      SNAPSYNC_RETURN_IF_ERROR(NoteWrite(write.offset, write.data));
    }
    return file_->Write(operations);
  }
  absl::Status WriteCached(uint64_t offset,
                           std::span<const std::byte> data) override {
    SNAPSYNC_RETURN_IF_ERROR(NoteWrite(offset, data));
    return file_->WriteCached(offset, data);
  }
  absl::Status Resize(uint64_t size) override {
    SNAPSYNC_RETURN_IF_ERROR(Note(Kind::kResize, size, 0));
    return file_->Resize(size);
  }
  absl::Status Punch(Extent extent) override {
    SNAPSYNC_RETURN_IF_ERROR(Note(Kind::kPunch, extent.offset, extent.length));
    return file_->Punch(extent);
  }
  absl::Status Flush() override {
    SNAPSYNC_RETURN_IF_ERROR(Note(Kind::kFlush, 0, 0));
    return file_->Flush();
  }
  absl::Status TakeOwnerOf(const GrowingFile& other) override {
    return file_->TakeOwnerOf(other);
  }

 private:
  absl::Status Note(Kind kind, uint64_t offset, uint64_t length) {
    FolderChange change;
    change.kind = kind;
    change.file = number_;
    change.offset = offset;
    change.length = length;
    return recording_->Note(std::move(change));
  }
  absl::Status NoteWrite(uint64_t offset, std::span<const std::byte> data) {
    FolderChange change;
    change.kind = Kind::kWrite;
    change.file = number_;
    change.offset = offset;
    change.length = data.size();
    change.data.assign(data.begin(), data.end());
    return recording_->Note(std::move(change));
  }

  const std::unique_ptr<GrowingFile> file_;
  Recording* const recording_;
  const size_t number_;
};

class RecordedFolder final : public HostFolder {
 public:
  RecordedFolder(std::unique_ptr<HostFolder> folder, Recording* recording)
      : folder_(std::move(folder)), recording_(recording) {}

  const std::string& path() const override { return folder_->path(); }
  absl::StatusOr<std::vector<std::string>> Names() override {
    return folder_->Names();
  }
  absl::StatusOr<std::unique_ptr<GrowingFile>> Open(const std::string& name,
                                                    Access access) override {
    SNAPSYNC_ASSIGN_OR_RETURN(auto file, folder_->Open(name, access));
    if (file == nullptr) return nullptr;
    return std::make_unique<RecordedFile>(std::move(file), recording_,
                                          recording_->FileOf(name));
  }
  absl::StatusOr<std::unique_ptr<GrowingFile>> Create(
      const std::string& name) override {
    const size_t number = recording_->NewFile();
    SNAPSYNC_RETURN_IF_ERROR(Note(Kind::kCreate, number, name, ""));
    SNAPSYNC_ASSIGN_OR_RETURN(auto file, folder_->Create(name));
    recording_->Name(name, number);
    return std::make_unique<RecordedFile>(std::move(file), recording_, number);
  }
  absl::Status Rename(const std::string& from, const std::string& to,
                      IfThere if_there) override {
    SNAPSYNC_RETURN_IF_ERROR(Note(Kind::kRename, 0, from, to));
    SNAPSYNC_RETURN_IF_ERROR(folder_->Rename(from, to, if_there));
    recording_->Name(to, recording_->FileOf(from));
    recording_->Unname(from);
    return absl::OkStatus();
  }
  absl::Status Remove(const std::string& name) override {
    SNAPSYNC_RETURN_IF_ERROR(Note(Kind::kRemove, 0, name, ""));
    recording_->Unname(name);
    return folder_->Remove(name);
  }
  absl::Status Flush() override {
    SNAPSYNC_RETURN_IF_ERROR(Note(Kind::kFlushFolder, 0, "", ""));
    return folder_->Flush();
  }

 private:
  absl::Status Note(Kind kind, size_t file, const std::string& name,
                    const std::string& to) {
    FolderChange change;
    change.kind = kind;
    change.file = file;
    change.name = name;
    change.to = to;
    return recording_->Note(std::move(change));
  }

  const std::unique_ptr<HostFolder> folder_;
  Recording* const recording_;
};

// A file as a power cut may leave it: bytes and, apart from them, a size.
struct Image {
  std::vector<std::byte> bytes;
  uint64_t size = 0;

  void Put(uint64_t offset, std::span<const std::byte> data) {
    if (bytes.size() < offset + data.size()) bytes.resize(offset + data.size());
    std::copy(data.begin(), data.end(),
              bytes.begin() + static_cast<ptrdiff_t>(offset));
  }
  void Clear(uint64_t offset, uint64_t end) {
    end = std::min<uint64_t>(end, bytes.size());
    if (offset >= end) return;
    std::fill(bytes.begin() + static_cast<ptrdiff_t>(offset),
              bytes.begin() + static_cast<ptrdiff_t>(end), std::byte{0});
  }
};

}  // namespace

Recording::Recording(const std::string& path, const std::string& durable) {
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    const std::string contents =
        ContentsOf(std::filesystem::path(durable) / entry.path().filename());
    const auto bytes = std::as_bytes(std::span(contents));
    const size_t file = NewFile();
    first_names_[entry.path().filename()] = file;
    first_contents_[file] = {bytes.begin(), bytes.end()};
  }
  names_ = first_names_;
}

std::unique_ptr<HostFolder> Recording::Wrap(
    std::unique_ptr<HostFolder> folder) {
  return std::make_unique<RecordedFolder>(std::move(folder), this);
}

absl::Status Recording::Note(FolderChange change) {
  if (before) SNAPSYNC_RETURN_IF_ERROR(before(change));
  changes_.push_back(std::move(change));
  return absl::OkStatus();
}

Recording::Contents Recording::CrashedFile(size_t file, size_t count,
                                           double loss, Random& random) const {
  size_t flushed = 0;  // changes before it are durable
  for (size_t i = 0; i < count; ++i) {
    if (changes_[i].kind == Kind::kFlush && changes_[i].file == file) {
      flushed = i;
    }
  }
  Image image;
  if (const auto found = first_contents_.find(file);
      found != first_contents_.end()) {
    image.bytes = found->second;
    image.size = image.bytes.size();
  }
  std::vector<uint64_t> sizes = {image.size};  // of which it may have any
  for (size_t i = 0; i < count; ++i) {
    const FolderChange& change = changes_[i];
    if (change.file != file) continue;
    const bool durable = i < flushed;
    const auto kept = [&] { return durable || !random.Percent(loss); };
    if (change.kind == Kind::kWrite) {
      for (uint64_t at = 0; at < change.length; at += kSectorBytes) {
        if (!kept()) continue;
        image.Put(change.offset + at,
                  std::span(change.data)
                      .subspan(at, std::min(kSectorBytes, change.length - at)));
      }
      image.size = std::max(image.size, change.offset + change.length);
    } else if (change.kind == Kind::kPunch) {
      for (uint64_t at = 0; at < change.length; at += kSectorBytes) {
        if (!kept()) continue;
        image.Clear(change.offset + at,
                    change.offset + std::min(at + kSectorBytes, change.length));
      }
    } else if (change.kind == Kind::kResize) {
      if (kept()) image.Clear(change.offset, ~uint64_t{0});
      image.size = change.offset;
    } else if (change.kind == Kind::kFlush && i == flushed) {
      sizes.clear();
    }
    if (i >= flushed) sizes.push_back(image.size);
  }
  uint64_t size = image.size;
  if (!sizes.empty() && random.Percent(loss)) {
    size = sizes[random.Below(sizes.size())];
  }
  image.bytes.resize(size);
  return image.bytes;
}

std::map<std::string, size_t> Recording::CrashedNames(size_t count, double loss,
                                                      Random& random) const {
  size_t flushed = 0;
  for (size_t i = 0; i < count; ++i) {
    if (changes_[i].kind == Kind::kFlushFolder) flushed = i;
  }
  std::map<std::string, size_t> names = first_names_;
  for (size_t i = 0; i < count; ++i) {
    const FolderChange& change = changes_[i];
    const bool is_name = change.kind == Kind::kCreate ||
                         change.kind == Kind::kRename ||
                         change.kind == Kind::kRemove;
    if (!is_name || (i >= flushed && random.Percent(loss))) continue;
    if (change.kind == Kind::kCreate) {
      names[change.name] = change.file;
    } else if (change.kind == Kind::kRemove) {
      names.erase(change.name);
    } else if (names.contains(change.name)) {
      names[change.to] = names[change.name];
      names.erase(change.name);
    }
  }
  return names;
}

void Recording::MakeCrashed(size_t count, double loss, double name_loss,
                            Random& random, const std::string& path) const {
  for (const auto& [name, file] : CrashedNames(count, name_loss, random)) {
    const Contents contents = CrashedFile(file, count, loss, random);
    std::string where = path;
    where.append("/").append(name);
    WriteContents(where, {reinterpret_cast<const char*>(contents.data()),
                          contents.size()});
  }
}

bool Recording::SavesNothing(size_t flush) const {
  Random random(0);
  const auto names = CrashedNames(flush, 0, random);
  return names == CrashedNames(flush, 100, random) &&
         std::all_of(names.begin(), names.end(), [&](const auto& name) {
           return CrashedFile(name.second, flush, 0, random) ==
                  CrashedFile(name.second, flush, 100, random);
         });
}

}  // namespace snapsync
