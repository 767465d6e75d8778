// SPDX-License-Identifier: Apache-2.0
//
// Numbers that both ends of a connection keep to, with the reason for each.
#ifndef SNAPSYNC_COMMON_WIRE_LIMITS_H_
#define SNAPSYNC_COMMON_WIRE_LIMITS_H_

#include <cstdint>

#include "common/transfer/chunk.h"

namespace snapsync {

// The protocol's versions that this build speaks.
inline constexpr uint32_t kLowestProtocol = 1;
inline constexpr uint32_t kHighestProtocol = 1;

inline constexpr int kDefaultPort = 7780;

// A chunk and its pieces (at most 25 bytes each) fit.
inline constexpr int kMaxMessageBytes =
    static_cast<int>(kChunkDataBytes + 64 * kKiB);

// HTTP/2 frames of a whole chunk: a tenth less CPU than gRPC's 16 KiB.
inline constexpr int kFrameBytes = static_cast<int>(kMiB);

// What a stream may have on its way without being read: 8 MiB fill 100 Mbit/s
// at 640 ms, or 1 Gbit/s at 64 ms. Fixed, since gRPC's own estimate grows
// without a bound that memory could be planned with.
inline constexpr int kStreamWindowBytes = static_cast<int>(8 * kMiB);

// Arenas of malloc: with one for each of gRPC's threads, freed chunks of 1 MiB
// stay behind in all of them (155 MiB instead of 66 MiB in the agent).
inline constexpr int kMallocArenas = 2;

// Keepalive is a correctness setting: without it a silent network cut leaves
// both ends waiting far past their deadlines.
inline constexpr int kKeepaliveTimeMs = 20000;
inline constexpr int kKeepaliveTimeoutMs = 10000;
inline constexpr int kMinPingIntervalMs = 5000;

inline constexpr int kHandshakeTimeoutMs = 10000;
inline constexpr int kMaxStreamsPerConnection = 8;
inline constexpr int kMaxMetadataBytes = 8192;

// Texts from a peer (volume, replication, source).
inline constexpr size_t kMaxTextBytes = 256;

// Where an agent that replicates to another one shows its ticket.
inline constexpr char kTicketHeader[] = "snapsync-ticket-bin";

}  // namespace snapsync

#endif  // SNAPSYNC_COMMON_WIRE_LIMITS_H_
