// SPDX-License-Identifier: Apache-2.0
//
// Mutual TLS 1.3 between sender and agent. A node is known by the one URI in
// its certificate's subject alternative names, spiffe://snapsync/node/NAME;
// names and addresses there say where an agent may be found, never who it is.
//
// gRPC reports most certificate trouble as "socket closed", so the files are
// checked here before it gets them, and a failed connection can be asked for
// its reason. All errors are kPermission and name the file.
#ifndef SNAPSYNC_COMMON_WIRE_TLS_H_
#define SNAPSYNC_COMMON_WIRE_TLS_H_

#include <grpcpp/security/auth_context.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace snapsync::wire {

// Paths of PEM files.
struct TlsFiles {
  std::string ca;
  std::string certificate;
  std::string key;
};

// Allows TLS 1.3 alone, with AES-256-GCM first. Called before the first use of
// gRPC in the process, while it has one thread.
void RestrictToTls13();

// Checks the three files: readable, in date, made for each other, issued by the
// CA, the key not readable by others. Returns the node's name.
absl::StatusOr<std::string> CheckTlsFiles(const TlsFiles& files);

// Both take up renewed files by themselves within seconds.
std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(
    const TlsFiles& files);
std::shared_ptr<grpc::ChannelCredentials> MakeChannelCredentials(
    const TlsFiles& files);

// The name of the node at the other end of a call.
absl::StatusOr<std::string> PeerName(const grpc::AuthContext& context);

// Why no connection to `host` comes about: makes one by hand, up to the first
// answer. OK if that worked.
absl::Status DiagnoseConnection(const TlsFiles& files, const std::string& host,
                                int port);

}  // namespace snapsync::wire

#endif  // SNAPSYNC_COMMON_WIRE_TLS_H_
