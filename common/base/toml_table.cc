// SPDX-License-Identifier: Apache-2.0
#include "common/base/toml_table.h"

// Its assertions stop debug builds at some malformed files, of which the lines
// after them report the error.
#define TOML_ASSERT(expression) static_assert(true)
#include <toml++/toml.h>

#include <deque>
#include <set>
#include <utility>

#include "common/base/atomic_file.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"

namespace snapsync {

struct TomlTable::Node {
  const toml::table* table;  // null: not in the file
  std::string name;          // "agent", "volume"
  std::set<std::string> asked;
};

struct TomlTable::Document {
  std::string path;
  toml::table root;
  std::deque<Node> nodes;  // addresses stay
  absl::Status first_error;

  void Fail(const toml::node* node, const std::string& text) {
    if (!first_error.ok()) return;
    std::string where = path;
    if (node != nullptr) {
      where += ", line " + std::to_string(node->source().begin.line);
    }
    first_error = Error(Reason::kConfiguration, where + ": " + text);
  }
};

TomlTable::TomlTable(std::shared_ptr<Document> document, Node* node)
    : document_(std::move(document)), node_(node) {}

absl::StatusOr<TomlTable> TomlTable::ParseFile(const std::string& path) {
  absl::StatusOr<std::string> text = ReadWholeFile(path, kMiB);
  if (!text.ok()) {
    return Error(Reason::kConfiguration, MessageOf(text.status()));
  }
  return Parse(path, *text);
}

absl::StatusOr<TomlTable> TomlTable::Parse(const std::string& path,
                                           const std::string& text) {
  auto document = std::make_shared<Document>();
  document->path = path;
  try {
    document->root = toml::parse(text, path);
  } catch (const toml::parse_error& error) {
    return Error(Reason::kConfiguration,
                 path + ", line " + std::to_string(error.source().begin.line) +
                     ": " + std::string(error.description()) +
                     " (text values need quotes)");
  }
  Node* root = &document->nodes.emplace_back(Node{&document->root, "", {}});
  return TomlTable(std::move(document), root);
}

bool TomlTable::Has(const std::string& key) const {
  return node_->table != nullptr && node_->table->contains(key);
}

namespace {

const toml::node* Find(const toml::table* table, const std::string& key) {
  return table == nullptr ? nullptr : table->get(key);
}

}  // namespace

std::string TomlTable::String(const std::string& key,
                              const std::string& fallback) {
  node_->asked.insert(key);
  const toml::node* value = Find(node_->table, key);
  if (value == nullptr) return fallback;
  if (const auto text = value->value_exact<std::string>()) return *text;
  document_->Fail(value, "\"" + key + "\" must be a text in quotes");
  return fallback;
}

int64_t TomlTable::Integer(const std::string& key, int64_t fallback) {
  node_->asked.insert(key);
  const toml::node* value = Find(node_->table, key);
  if (value == nullptr) return fallback;
  if (const auto number = value->value_exact<int64_t>()) return *number;
  document_->Fail(value, "\"" + key + "\" must be a whole number");
  return fallback;
}

bool TomlTable::Boolean(const std::string& key, bool fallback) {
  node_->asked.insert(key);
  const toml::node* value = Find(node_->table, key);
  if (value == nullptr) return fallback;
  if (const auto given = value->value_exact<bool>()) return *given;
  document_->Fail(value, "\"" + key + "\" must be true or false");
  return fallback;
}

uint64_t TomlTable::Size(const std::string& key, uint64_t fallback) {
  node_->asked.insert(key);
  const toml::node* value = Find(node_->table, key);
  if (value == nullptr) return fallback;
  if (const auto number = value->value_exact<int64_t>();
      number && *number >= 0) {
    return static_cast<uint64_t>(*number);
  }
  if (const auto text = value->value_exact<std::string>()) {
    const absl::StatusOr<uint64_t> size = ParseSize(*text);
    if (size.ok()) return *size;
  }
  document_->Fail(value, "\"" + key +
                             "\" must be a size: a number, or text such as "
                             "\"10M\"");
  return fallback;
}

std::vector<std::string> TomlTable::Strings(const std::string& key) {
  node_->asked.insert(key);
  std::vector<std::string> texts;
  const toml::node* value = Find(node_->table, key);
  if (value == nullptr) return texts;
  if (const toml::array* array = value->as_array()) {
    for (const toml::node& item : *array) {
      if (const auto text = item.value_exact<std::string>()) {
        texts.push_back(*text);
      } else {
        document_->Fail(&item, "\"" + key + "\" must hold texts in quotes");
      }
    }
    return texts;
  }
  document_->Fail(value, "\"" + key + "\" must be a list: [\"...\"]");
  return texts;
}

TomlTable TomlTable::Table(const std::string& key) {
  node_->asked.insert(key);
  const toml::node* value = Find(node_->table, key);
  const toml::table* table = value == nullptr ? nullptr : value->as_table();
  if (value != nullptr && table == nullptr) {
    document_->Fail(value, "\"" + key + "\" must be a table: [" + key + "]");
  }
  return TomlTable(document_,
                   &document_->nodes.emplace_back(Node{table, key, {}}));
}

std::vector<TomlTable> TomlTable::Tables(const std::string& key) {
  node_->asked.insert(key);
  std::vector<TomlTable> tables;
  const toml::node* value = Find(node_->table, key);
  if (value == nullptr) return tables;
  const toml::array* array = value->as_array();
  if (array == nullptr || !array->is_homogeneous<toml::table>()) {
    document_->Fail(value, "write [[" + key + "]], once for each");
    return tables;
  }
  for (const toml::node& item : *array) {
    tables.push_back(TomlTable(document_, &document_->nodes.emplace_back(
                                              Node{item.as_table(), key, {}})));
  }
  return tables;
}

void TomlTable::Refuse(const std::string& key, const std::string& why) {
  const toml::node* value = Find(node_->table, key);
  document_->Fail(
      value != nullptr ? value : node_->table,
      (node_->name.empty() ? "" : "[" + node_->name + "] ") + key + ": " + why);
}

absl::Status TomlTable::Finish() const {
  if (!document_->first_error.ok()) return document_->first_error;
  for (const Node& node : document_->nodes) {
    if (node.table == nullptr) continue;
    for (const auto& [key, value] : *node.table) {
      if (node.asked.contains(std::string(key.str()))) continue;
      document_->Fail(
          &value,
          "unknown key \"" + std::string(key.str()) + "\"" +
              (node.name.empty() ? std::string() : " in [" + node.name + "]"));
    }
  }
  return document_->first_error;
}

}  // namespace snapsync
