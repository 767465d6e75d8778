// SPDX-License-Identifier: Apache-2.0
#include "common/base/first_line.h"

#include <fstream>

namespace snapsync {

std::string FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

}  // namespace snapsync
