// SPDX-License-Identifier: Apache-2.0
//
// The confined process that reads an image, as the program that wants the image
// sees it: started, talked to (reader_protocol.h), and ended.
//
// Construction and destruction belong to one thread; what is said on different
// sockets may be said by different threads. Errors are kOther when the process
// died (with what it died of) or is silent: it is of no use any more;
// kConfiguration when it can't be started.
#ifndef SNAPSYNC_COMMON_QCOW2_READER_PROCESS_H_
#define SNAPSYNC_COMMON_QCOW2_READER_PROCESS_H_

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "common/qcow2/packet_socket.h"

namespace snapsync::qcow2 {

class ReaderProcess {
 public:
  // Starts `program` with `channels` of them. It is called the reader of
  // `image` in errors. An answer that takes longer than `patience` is none.
  static absl::StatusOr<std::unique_ptr<ReaderProcess>> Start(
      const std::string& program, const std::string& image, size_t channels,
      std::chrono::milliseconds patience);
  // Kills it.
  ~ReaderProcess();
  ReaderProcess(const ReaderProcess&) = delete;
  ReaderProcess& operator=(const ReaderProcess&) = delete;

  const PacketSocket& control() const { return control_; }
  const PacketSocket& channel(size_t index) const { return channels_[index]; }
  // A slot of a channel: its contents change whenever the process likes.
  std::span<const std::byte> Slot(size_t channel, size_t slot) const;

  absl::Status Send(const PacketSocket& socket, const Packer& packer,
                    int descriptor = -1);
  absl::StatusOr<std::vector<std::byte>> Receive(const PacketSocket& socket);

  // For an answer that can't be.
  absl::Status Nonsense() const;

 private:
  ReaderProcess(std::string image, PacketSocket control,
                std::vector<PacketSocket> channels,
                std::chrono::milliseconds patience);

  // A status of a socket, made one of the process.
  absl::Status Explain(const absl::Status& status);
  // How it ended, if it did.
  std::string DescribeEnd();

  const std::string image_;
  const PacketSocket control_;
  const std::vector<PacketSocket> channels_;
  const std::chrono::milliseconds patience_;
  std::span<std::byte> memory_;  // mapped for reading

  Mutex mutex_;
  pid_t pid_ ABSL_GUARDED_BY(mutex_) = 0;  // 0: not started, or waited for
  std::optional<int> wait_status_ ABSL_GUARDED_BY(mutex_);
};

// Where the program is: beside the one that runs.
absl::StatusOr<std::string> FindReaderProgram();

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_READER_PROCESS_H_
