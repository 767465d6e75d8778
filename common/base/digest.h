// SPDX-License-Identifier: Apache-2.0
//
// The two hashes of the project. SHA-256 (OpenSSL) where equality decides
// something that an adversary might want to forge: plans, sessions, blocks that
// are not sent. XXH3-128 as the checksum of a chunk on its way from the read on
// the sender to the write on the agent.
#ifndef SNAPSYNC_COMMON_BASE_DIGEST_H_
#define SNAPSYNC_COMMON_BASE_DIGEST_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace snapsync {

using Digest256 = std::array<std::byte, 32>;
using Checksum128 = std::array<std::byte, 16>;

// SHA-256 over what Update() was given, in order. Used by one thread at a time.
class Sha256 {
 public:
  Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  ~Sha256();

  Sha256& Update(std::span<const std::byte> data);
  Sha256& Update(std::string_view text);
  // Eight bytes, little-endian.
  Sha256& Update(uint64_t value);
  // Ends the hash; nothing may be called after it.
  Digest256 Finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

// XXH3-128 over what Update() was given, in order. The value is stored in
// XXH's canonical form. Used by one thread at a time.
class Xxh3 {
 public:
  Xxh3();
  ~Xxh3();
  Xxh3(const Xxh3&) = delete;
  Xxh3& operator=(const Xxh3&) = delete;

  Xxh3& Update(std::span<const std::byte> data);
  Xxh3& Update(uint64_t value);
  Checksum128 Finish() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Lower-case hexadecimal.
std::string Hex(std::span<const std::byte> bytes);
// False, and `out` unspecified, when `text` is not exactly out.size() bytes in
// hexadecimal.
bool FromHex(std::string_view text, std::span<std::byte> out);

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_BASE_DIGEST_H_
