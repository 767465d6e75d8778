// SPDX-License-Identifier: Apache-2.0
//
// A folder that is removed, with what is in it, at the end of the test.
#ifndef SNAPSYNC_TESTS_TESTING_TEMPORARY_FOLDER_H_
#define SNAPSYNC_TESTS_TESTING_TEMPORARY_FOLDER_H_

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

namespace snapsync {

class TemporaryFolder {
 public:
  TemporaryFolder() : TemporaryFolder(std::filesystem::temp_directory_path()) {}
  explicit TemporaryFolder(const std::filesystem::path& within) {
    std::string name = (within / "snapsync-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  // In memory, where a flush takes no time, if this machine has such a place.
  // O_DIRECT does not work there.
  static std::filesystem::path InMemory() {
    const std::filesystem::path memory = "/dev/shm";
    return std::filesystem::is_directory(memory)
               ? memory
               : std::filesystem::temp_directory_path();
  }

  const std::string& path() const { return path_; }
  std::string operator/(std::string_view name) const {
    return path_ + "/" + std::string(name);
  }

 private:
  std::string path_;
};

inline std::string ContentsOf(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void WriteContents(const std::string& path, std::string_view contents) {
  std::ofstream file(path, std::ios::binary);
  file.write(contents.data(), static_cast<std::streamsize>(contents.size()));
}

}  // namespace snapsync

#endif  // SNAPSYNC_TESTS_TESTING_TEMPORARY_FOLDER_H_
