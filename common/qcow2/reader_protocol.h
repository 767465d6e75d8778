// SPDX-License-Identifier: Apache-2.0
//
// What a program and the confined process that reads an image for it
// (snapsync-qcow2-reader) say to each other. The program opens files, decides
// which may be opened, and reads the plain data; the process parses the images
// and decompresses. Nothing that the process says is believed unchecked.
//
// The process finds open: kControlFd, a packet socket; kMemoryFd, shared
// memory; from kFirstChannelFd on a packet socket for each of its threads.
//
//   on the control socket                       on a channel, each in turn
//   → kStart  options                           → kRead    range, slot
//   ← kOpen   role, by, name                    ← kRuns    where it is
//   → kFile   number, size, name (+ descriptor) → kExtents from where on
//   ← kAtWork                                   ← kExtents what may hold data
//   ← kOpened facts        or ← kFailed         or ← kFailed
//
// Compressed data are put into the slot of the request: a piece of the shared
// memory, at the place that they have within the range.
#ifndef SNAPSYNC_COMMON_QCOW2_READER_PROTOCOL_H_
#define SNAPSYNC_COMMON_QCOW2_READER_PROTOCOL_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "common/qcow2/packet_socket.h"

namespace snapsync::qcow2 {

// Of the packets. An upgrade may replace the process's program while an older
// one that starts it still runs.
inline constexpr uint32_t kReaderProtocolVersion = 1;

inline constexpr char kReaderProgram[] = "snapsync-qcow2-reader";

inline constexpr int kControlFd = 3;
inline constexpr int kMemoryFd = 4;
inline constexpr int kFirstChannelFd = 5;
inline constexpr size_t kMaxChannels = 8;

// Two requests for each channel are under way: one is worked on while the
// answer to the other one is taken.
inline constexpr size_t kSlotsPerChannel = 2;
// The largest cluster, and the longest range of one request.
inline constexpr size_t kSlotBytes = size_t{2} << 20U;

// What the process exits with when its memory is used up.
inline constexpr int kOutOfMemoryStatus = 71;

inline constexpr size_t kMaxRunsInPacket = 2048;
inline constexpr size_t kMaxExtentsInPacket = 4096;

enum class Message : uint32_t {
  kStart = 1,
  kOpen,
  kFile,
  kAtWork,
  kOpened,
  kRead,
  kRuns,
  kExtents,
  kFailed,
};

// How a run is to be read, as an answer says it.
enum class Source : uint32_t {
  kZero = 1,  // zeroes
  kFile,      // from a file, by its number
  kSlot,      // from the slot of the request
};

// kFailed with a status, and the status in it: its text is bounded and
// printable, whatever it was.
Packer PackFailure(const absl::Status& status);
absl::Status UnpackFailure(Unpacker& unpacker);

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_READER_PROTOCOL_H_
