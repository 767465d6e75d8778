// SPDX-License-Identifier: Apache-2.0
//
// A table of a TOML file that is read key by key, so that whatever was not
// asked for is known at the end: an unknown key is an error with its line, not
// a setting that silently does nothing.
//
//   SNAPSYNC_ASSIGN_OR_RETURN(TomlTable root, TomlTable::ParseFile(path));
//   TomlTable agent = root.Table("agent");
//   config.name = agent.String("name", "");
//   SNAPSYNC_RETURN_IF_ERROR(root.Finish());
//
// Values of the wrong type are remembered as an error and read as the default;
// Finish() on the root reports the first one. All errors are kConfiguration,
// with file and line. Used by one thread at a time; sub-tables share the root's
// state.
#ifndef SNAPSYNC_COMMON_BASE_TOML_TABLE_H_
#define SNAPSYNC_COMMON_BASE_TOML_TABLE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace snapsync {

class TomlTable {
 public:
  static absl::StatusOr<TomlTable> ParseFile(const std::string& path);
  static absl::StatusOr<TomlTable> Parse(const std::string& path,
                                         const std::string& text);

  bool Has(const std::string& key) const;
  std::string String(const std::string& key, const std::string& fallback);
  int64_t Integer(const std::string& key, int64_t fallback);
  bool Boolean(const std::string& key, bool fallback);
  // A string with K, M, G or a plain number: bytes.
  uint64_t Size(const std::string& key, uint64_t fallback);
  std::vector<std::string> Strings(const std::string& key);
  // [key]; empty when it is missing.
  TomlTable Table(const std::string& key);
  // [[key]], in order.
  std::vector<TomlTable> Tables(const std::string& key);

  // Remembers an error about `key` of this table (line included).
  void Refuse(const std::string& key, const std::string& why);

  // The first error, or the first key that nobody asked for.
  absl::Status Finish() const;

 private:
  struct Document;
  struct Node;
  TomlTable(std::shared_ptr<Document> document, Node* node);

  std::shared_ptr<Document> document_;
  Node* node_;  // owned by the document
};

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BASE_TOML_TABLE_H_
