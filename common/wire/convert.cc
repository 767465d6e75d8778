// SPDX-License-Identifier: Apache-2.0
#include "common/wire/convert.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"
#include "common/transfer/block_hashes.h"
#include "common/wire/limits.h"

namespace snapsync::wire {
namespace {

constexpr uint64_t kMaxSourceBytes = uint64_t{1} << 62;
constexpr size_t kExtentsPerMessage = 4096;
constexpr size_t kDigestBytes = sizeof(Digest256);

template <size_t kSize>
std::string BytesOf(const std::array<std::byte, kSize>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string BytesOf(const Id128& id) {
  return id.none() ? std::string() : BytesOf(id.bytes);
}

absl::Status Bad(const char* field, const std::string& what) {
  return Error(Reason::kOther, std::string("message from the peer: field ") +
                                   field + " " + what);
}

template <size_t kSize>
absl::Status Read(const char* field, const std::string& bytes,
                  std::array<std::byte, kSize>& out) {
  if (bytes.size() != kSize) {
    return Bad(field, "has " + std::to_string(bytes.size()) +
                          " bytes, expected " + std::to_string(kSize));
  }
  std::memcpy(out.data(), bytes.data(), kSize);
  return absl::OkStatus();
}

absl::Status ReadId(const char* field, const std::string& bytes, Id128& out) {
  if (bytes.empty()) {
    out = Id128{};
    return absl::OkStatus();
  }
  return Read(field, bytes, out.bytes);
}

absl::Status ReadText(const char* field, const std::string& text,
                      std::string& out) {
  if (text.size() > kMaxTextBytes) return Bad(field, "is too long");
  const bool printable = std::all_of(
      text.begin(), text.end(), [](char c) { return c >= ' ' && c != '\x7f'; });
  if (!printable) return Bad(field, "holds control characters");
  out = text;
  return absl::OkStatus();
}

void SetVersions(v1::VersionRange& versions) {
  versions.set_lowest(kLowestProtocol);
  versions.set_highest(kHighestProtocol);
}

absl::Status CheckVersions(const v1::VersionRange& versions) {
  if (versions.lowest() <= kHighestProtocol &&
      versions.highest() >= kLowestProtocol) {
    return absl::OkStatus();
  }
  return Error(Reason::kOther,
               "the sender speaks protocol versions " +
                   std::to_string(versions.lowest()) + " to " +
                   std::to_string(versions.highest()) + ", this agent " +
                   std::to_string(kLowestProtocol) + " to " +
                   std::to_string(kHighestProtocol) + "; update the older one");
}

// HashBlocksRequest and ChangedSinceRequest say the same of the target.
template <typename Message>
void FillCompared(const HashRequest& request, Message& message) {
  SetVersions(*message.mutable_versions());
  message.set_volume(request.volume);
  message.set_replication(request.replication);
  message.set_source(request.source.substr(0, kMaxTextBytes));
  message.set_source_size(request.source_size);
  message.set_allow_overwrite(request.allow_overwrite);
  message.set_dry_run(request.dry_run);
}

template <typename Message>
absl::StatusOr<HashRequest> ReadCompared(const Message& message) {
  SNAPSYNC_RETURN_IF_ERROR(CheckVersions(message.versions()));
  HashRequest request;
  SNAPSYNC_RETURN_IF_ERROR(
      ReadText("volume", message.volume(), request.volume));
  SNAPSYNC_RETURN_IF_ERROR(
      ReadText("replication", message.replication(), request.replication));
  SNAPSYNC_RETURN_IF_ERROR(
      ReadText("source", message.source(), request.source));
  if (request.replication.empty()) return Bad("replication", "is empty");
  if (message.source_size() > kMaxSourceBytes ||
      message.source_size() % kSectorBytes != 0) {
    return Bad("source_size", "is out of range, or not of whole sectors");
  }
  request.source_size = message.source_size();
  request.allow_overwrite = message.allow_overwrite();
  request.dry_run = message.dry_run();
  return request;
}

}  // namespace

v1::OpenSessionRequest ToProto(const SessionRequest& request) {
  v1::OpenSessionRequest message;
  SetVersions(*message.mutable_versions());
  message.set_volume(request.volume);
  message.set_replication(request.replication);
  message.set_source(request.source.substr(0, kMaxTextBytes));
  message.set_base(BytesOf(request.base));
  message.set_generation(BytesOf(request.generation));
  message.set_source_size(request.source_size);
  message.set_plan_digest(BytesOf(request.plan_digest));
  message.set_chunk_count(request.chunk_count);
  message.set_covers_all(request.covers_all);
  message.set_allow_overwrite(request.allow_overwrite);
  message.set_new_bytes(request.new_bytes);
  message.set_no_verify(request.no_verify);
  if (request.image.given()) {
    v1::Image& image = *message.mutable_image();
    image.set_virtual_size(request.image.virtual_size);
    image.set_cluster_size(request.image.cluster_size);
    image.set_compression(request.image.compression);
    image.set_chain(request.image.chain);
    image.set_keep(request.image.keep);
  }
  return message;
}

absl::StatusOr<SessionRequest> FromProto(
    const v1::OpenSessionRequest& message) {
  SNAPSYNC_RETURN_IF_ERROR(CheckVersions(message.versions()));
  SessionRequest request;
  SNAPSYNC_RETURN_IF_ERROR(
      ReadText("volume", message.volume(), request.volume));
  SNAPSYNC_RETURN_IF_ERROR(
      ReadText("replication", message.replication(), request.replication));
  SNAPSYNC_RETURN_IF_ERROR(
      ReadText("source", message.source(), request.source));
  SNAPSYNC_RETURN_IF_ERROR(ReadId("base", message.base(), request.base));
  SNAPSYNC_RETURN_IF_ERROR(
      ReadId("generation", message.generation(), request.generation));
  SNAPSYNC_RETURN_IF_ERROR(
      Read("plan_digest", message.plan_digest(), request.plan_digest));
  if (request.replication.empty()) return Bad("replication", "is empty");
  if (message.source_size() > kMaxSourceBytes) {
    return Bad("source_size", "is out of range");
  }
  request.source_size = message.source_size();
  request.chunk_count = message.chunk_count();
  request.covers_all = message.covers_all();
  request.allow_overwrite = message.allow_overwrite();
  request.new_bytes = message.new_bytes();
  request.no_verify = message.no_verify();
  const v1::Image& image = message.image();
  if (image.virtual_size() > kMaxSourceBytes) {
    return Bad("image.virtual_size", "is out of range");
  }
  SNAPSYNC_RETURN_IF_ERROR(ReadText("image.compression", image.compression(),
                                    request.image.compression));
  request.image.virtual_size = image.virtual_size();
  request.image.cluster_size = image.cluster_size();
  request.image.chain = image.chain();
  request.image.keep = image.keep();
  return request;
}

v1::OpenSessionResponse ToProto(const SessionGrant& grant) {
  v1::OpenSessionResponse message;
  message.set_version(kHighestProtocol);
  message.set_session(BytesOf(grant.session));
  message.set_watermark(grant.watermark);
  message.set_digest(BytesOf(grant.digest));
  message.set_committed(grant.committed);
  message.set_number(grant.number);
  return message;
}

absl::StatusOr<SessionGrant> FromProto(const v1::OpenSessionResponse& message) {
  SessionGrant grant;
  SNAPSYNC_RETURN_IF_ERROR(ReadId("session", message.session(), grant.session));
  SNAPSYNC_RETURN_IF_ERROR(Read("digest", message.digest(), grant.digest));
  grant.watermark = message.watermark();
  grant.committed = message.committed();
  grant.number = message.number();
  return grant;
}

void ToProto(const Chunk& chunk, v1::PushRequest& message) {
  message.set_index(chunk.index);
  message.clear_pieces();
  for (const Piece& piece : chunk.pieces) {
    v1::Piece* item = message.add_pieces();
    item->set_offset(piece.offset);
    item->set_length(piece.length);
    item->set_kind(static_cast<v1::PieceKind>(piece.kind));
  }
  message.set_checksum(chunk.checksum.data(), chunk.checksum.size());
  message.set_data(chunk.data.data(), chunk.data.size());
}

absl::StatusOr<Chunk> FromProto(const v1::PushRequest& message) {
  Chunk chunk;
  chunk.index = message.index();
  if (static_cast<size_t>(message.pieces_size()) > kChunkPieces) {
    return Bad("pieces", "has too many entries");
  }
  chunk.pieces.reserve(static_cast<size_t>(message.pieces_size()));
  for (const v1::Piece& piece : message.pieces()) {
    if (piece.kind() < v1::PIECE_KIND_DATA ||
        piece.kind() > v1::PIECE_KIND_GONE) {
      return Bad("pieces.kind", "is unknown: " + std::to_string(piece.kind()));
    }
    chunk.pieces.push_back(
        {piece.offset(), piece.length(), static_cast<PieceKind>(piece.kind())});
  }
  SNAPSYNC_RETURN_IF_ERROR(
      Read("checksum", message.checksum(), chunk.checksum));
  chunk.data = std::as_bytes(std::span(message.data()));
  return chunk;
}

absl::StatusOr<Id128> SessionOf(const v1::PushRequest& message) {
  Id128 id;
  SNAPSYNC_RETURN_IF_ERROR(ReadId("session", message.session(), id));
  return id;
}

v1::PushResponse ToProto(const SegmentAck& ack) {
  v1::PushResponse message;
  message.set_watermark(ack.watermark);
  message.set_digest(BytesOf(ack.digest));
  return message;
}

absl::StatusOr<SegmentAck> FromProto(const v1::PushResponse& message) {
  SegmentAck ack;
  ack.watermark = message.watermark();
  SNAPSYNC_RETURN_IF_ERROR(Read("digest", message.digest(), ack.digest));
  return ack;
}

v1::CommitSessionRequest ToProto(const CommitRequest& request) {
  v1::CommitSessionRequest message;
  message.set_volume(request.volume);
  message.set_session(BytesOf(request.session));
  message.set_chunk_count(request.chunk_count);
  message.set_digest(BytesOf(request.digest));
  return message;
}

absl::StatusOr<CommitRequest> FromProto(
    const v1::CommitSessionRequest& message) {
  CommitRequest request;
  SNAPSYNC_RETURN_IF_ERROR(
      ReadText("volume", message.volume(), request.volume));
  SNAPSYNC_RETURN_IF_ERROR(
      ReadId("session", message.session(), request.session));
  SNAPSYNC_RETURN_IF_ERROR(Read("digest", message.digest(), request.digest));
  request.chunk_count = message.chunk_count();
  return request;
}

v1::CommitSessionResponse ToProto(const Receipt& receipt) {
  v1::CommitSessionResponse message;
  message.set_generation(BytesOf(receipt.generation));
  message.set_number(receipt.number);
  return message;
}

absl::StatusOr<Receipt> FromProto(const v1::CommitSessionResponse& message) {
  Receipt receipt;
  SNAPSYNC_RETURN_IF_ERROR(
      ReadId("generation", message.generation(), receipt.generation));
  receipt.number = message.number();
  return receipt;
}

v1::HashBlocksRequest ToProto(const HashRequest& request) {
  v1::HashBlocksRequest message;
  FillCompared(request, message);
  message.set_first_block(request.first_block);
  return message;
}

absl::StatusOr<HashRequest> FromProto(const v1::HashBlocksRequest& message) {
  SNAPSYNC_ASSIGN_OR_RETURN(HashRequest request, ReadCompared(message));
  request.first_block = message.first_block();
  if (request.first_block > HashBlockCount(request.source_size)) {
    return Bad("first_block", "is beyond the source");
  }
  return request;
}

v1::HashBlocksResponse ToProto(const HashBatch& batch) {
  v1::HashBlocksResponse message;
  message.set_generation(BytesOf(batch.generation));
  message.set_first_block(batch.first_block);
  message.mutable_digests()->reserve(batch.digests.size() * kDigestBytes);
  for (const Digest256& digest : batch.digests) {
    message.mutable_digests()->append(BytesOf(digest));
  }
  return message;
}

absl::StatusOr<HashBatch> FromProto(const v1::HashBlocksResponse& message) {
  HashBatch batch;
  SNAPSYNC_RETURN_IF_ERROR(
      ReadId("generation", message.generation(), batch.generation));
  const std::string& digests = message.digests();
  if (digests.size() % kDigestBytes != 0 ||
      digests.size() > kHashBatchBlocks * kDigestBytes) {
    return Bad("digests", "has " + std::to_string(digests.size()) +
                              " bytes, expected up to " +
                              std::to_string(kHashBatchBlocks) + " times " +
                              std::to_string(kDigestBytes));
  }
  batch.first_block = message.first_block();
  batch.digests.resize(digests.size() / kDigestBytes);
  if (!digests.empty()) {
    std::memcpy(batch.digests.data(), digests.data(), digests.size());
  }
  return batch;
}

v1::ChangedSinceRequest ToProto(const ChangesRequest& request) {
  v1::ChangedSinceRequest message;
  FillCompared(request.target, message);
  for (const Id128& candidate : request.candidates) {
    message.add_candidates(BytesOf(candidate));
  }
  return message;
}

absl::StatusOr<ChangesRequest> FromProto(
    const v1::ChangedSinceRequest& message) {
  ChangesRequest request;
  SNAPSYNC_ASSIGN_OR_RETURN(request.target, ReadCompared(message));
  if (static_cast<size_t>(message.candidates_size()) >
      ChangesRequest::kMaxCandidates) {
    return Bad("candidates", "has too many entries");
  }
  for (const std::string& bytes : message.candidates()) {
    Id128 candidate;
    SNAPSYNC_RETURN_IF_ERROR(Read("candidates", bytes, candidate.bytes));
    request.candidates.push_back(candidate);
  }
  return request;
}

v1::ChangedSinceResponse ToProto(const Changes& changes, size_t first) {
  v1::ChangedSinceResponse message;
  if (first == 0) {
    message.set_generation(BytesOf(changes.generation));
    message.set_common(BytesOf(changes.common));
  }
  const std::vector<Extent>& extents = changes.extents.extents();
  const size_t end = std::min(extents.size(), first + kExtentsPerMessage);
  for (size_t i = first; i < end; ++i) {
    message.add_offsets(extents[i].offset);
    message.add_lengths(extents[i].length);
  }
  return message;
}

absl::Status Append(const v1::ChangedSinceResponse& message, Changes& changes) {
  if (changes.generation.none()) {
    SNAPSYNC_RETURN_IF_ERROR(
        Read("generation", message.generation(), changes.generation.bytes));
    SNAPSYNC_RETURN_IF_ERROR(
        Read("common", message.common(), changes.common.bytes));
  }
  if (message.offsets_size() != message.lengths_size()) {
    return Bad("lengths", "are not as many as the offsets");
  }
  const std::vector<Extent>& have = changes.extents.extents();
  for (int i = 0; i < message.offsets_size(); ++i) {
    const Extent extent{message.offsets(i), message.lengths(i)};
    const uint64_t begin = have.empty() ? 0 : have.back().end();
    if (extent.offset < begin || extent.offset > kMaxSourceBytes ||
        extent.length > kMaxSourceBytes || extent.offset % kSectorBytes != 0 ||
        extent.length % kSectorBytes != 0) {
      return Bad("offsets", "are out of range or order");
    }
    changes.extents.Append(extent);
  }
  return absl::OkStatus();
}

v1::Volume ToProto(const VolumeState& state) {
  v1::Volume message;
  message.set_name(state.name);
  message.set_kind(state.kind);
  message.set_state(state.state);
  message.set_place(state.place);
  message.set_size(state.size);
  message.set_blank(state.blank);
  message.set_grows(state.grows);
  message.set_allocation_unit(state.allocation_unit);
  message.set_replication(state.replication);
  message.set_generation(BytesOf(state.generation));
  message.set_number(state.number);
  message.set_promoted(state.promoted);
  for (const GenerationState& generation : state.generations) {
    v1::Generation* item = message.add_generations();
    item->set_generation(BytesOf(generation.generation));
    item->set_number(generation.number);
    item->set_size(generation.size);
    item->set_unix_seconds(generation.unix_seconds);
    item->set_retained(generation.retained);
    item->set_verified(generation.verified);
  }
  message.set_problem(state.problem);
  message.set_problem_reason(static_cast<uint32_t>(state.problem_reason));
  return message;
}

absl::StatusOr<VolumeState> FromProto(const v1::Volume& message) {
  VolumeState state;
  SNAPSYNC_RETURN_IF_ERROR(ReadText("name", message.name(), state.name));
  SNAPSYNC_RETURN_IF_ERROR(ReadText("kind", message.kind(), state.kind));
  SNAPSYNC_RETURN_IF_ERROR(ReadText("state", message.state(), state.state));
  SNAPSYNC_RETURN_IF_ERROR(ReadText("place", message.place(), state.place));
  SNAPSYNC_RETURN_IF_ERROR(
      ReadText("replication", message.replication(), state.replication));
  SNAPSYNC_RETURN_IF_ERROR(
      ReadId("generation", message.generation(), state.generation));
  state.problem = message.problem();
  if (message.problem_reason() > kLastReason) {
    return Bad("problem_reason", "is out of range");
  }
  state.problem_reason = static_cast<int>(message.problem_reason());
  state.size = message.size();
  state.blank = message.blank();
  state.grows = message.grows();
  state.allocation_unit = message.allocation_unit();
  state.number = message.number();
  state.promoted = message.promoted();
  for (const v1::Generation& item : message.generations()) {
    Id128 generation;
    SNAPSYNC_RETURN_IF_ERROR(
        ReadId("generations.generation", item.generation(), generation));
    state.generations.push_back({generation, item.number(), item.size(),
                                 item.unix_seconds(), item.retained(),
                                 item.verified()});
  }
  return state;
}

v1::ScrubResponse ToProto(const ScrubProgress& progress) {
  v1::ScrubResponse message;
  message.set_generation(BytesOf(progress.generation.generation));
  message.set_number(progress.generation.number);
  message.set_size(progress.size);
  message.set_next(progress.next);
  message.set_compared(progress.compared);
  message.set_recorded(progress.recorded);
  message.set_damaged_manifest(progress.damaged_manifest);
  message.set_damaged_bytes(progress.damaged_bytes);
  for (const Extent& extent : progress.damaged) {
    v1::ScrubDamage* item = message.add_damaged();
    item->set_offset(extent.offset);
    item->set_length(extent.length);
  }
  return message;
}

absl::StatusOr<ScrubProgress> FromProto(const v1::ScrubResponse& message) {
  ScrubProgress progress;
  SNAPSYNC_RETURN_IF_ERROR(ReadId("generation", message.generation(),
                                  progress.generation.generation));
  progress.generation.number = message.number();
  progress.size = message.size();
  progress.next = message.next();
  progress.compared = message.compared();
  progress.recorded = message.recorded();
  progress.damaged_manifest = message.damaged_manifest();
  progress.damaged_bytes = message.damaged_bytes();
  for (const v1::ScrubDamage& item : message.damaged()) {
    progress.damaged.push_back({item.offset(), item.length()});
  }
  return progress;
}

}  // namespace snapsync::wire
