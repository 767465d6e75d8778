// SPDX-License-Identifier: Apache-2.0
#include "common/base/id128.h"

#include <sys/random.h>

#include <cstdlib>

#include "common/base/digest.h"

namespace snapsync {

Id128 Id128::Random() {
  Id128 id;
  do {
    // 16 bytes are given whole once the generator is seeded. Without random
    // names nothing here is safe, so there is no way on.
    if (::getrandom(id.bytes.data(), id.bytes.size(), 0) !=
        static_cast<ssize_t>(id.bytes.size())) {
      std::abort();
    }
  } while (id.none());
  return id;
}

std::optional<Id128> Id128::Parse(std::string_view text) {
  Id128 id;
  if (!FromHex(text, id.bytes)) return std::nullopt;
  return id;
}

std::string Id128::ToString() const { return Hex(bytes); }

std::string Id128::Short() const {
  return none() ? "none" : ToString().substr(0, 8);
}

}  // namespace snapsync
