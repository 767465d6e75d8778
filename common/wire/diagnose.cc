// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <memory>
#include <string>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"
#include "common/wire/tls.h"

namespace snapsync::wire {
namespace {

constexpr timeval kPatience{5, 0};

struct FreeAddresses {
  void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};
struct FreeContext {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};
struct FreeConnection {
  void operator()(SSL* connection) const { SSL_free(connection); }
};

absl::StatusOr<UniqueFd> Connect(const std::string& host, int port) {
  const std::string where = host + ":" + std::to_string(port);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int failed =
      ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (failed != 0) {
    return Error(Reason::kConnection,
                 "host " + host + ": " + ::gai_strerror(failed));
  }
  const std::unique_ptr<addrinfo, FreeAddresses> list(found);
  int error = ETIMEDOUT;
  for (const addrinfo* item = found; item != nullptr; item = item->ai_next) {
    UniqueFd fd(::socket(item->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd.valid()) continue;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &kPatience,
                 sizeof kPatience);
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kPatience,
                 sizeof kPatience);
    if (::connect(fd.get(), item->ai_addr, item->ai_addrlen) == 0) return fd;
    error = errno == EINPROGRESS ? ETIMEDOUT : errno;
  }
  return Error(Reason::kConnection,
               "agent at " + where + ": " +
                   std::string(MessageOf(PosixError(error, "no connection"))) +
                   "; does snapsync-agent run there, on this port?");
}

// What OpenSSL's last error was. A connection that was merely closed (an agent
// being restarted) is kConnection; anything the other side said is not.
absl::Status HandshakeError(const std::string& what) {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  const char* text = code == 0 ? nullptr : ERR_reason_error_string(code);
  if (text == nullptr ||
      ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
    return Error(Reason::kConnection, what + ": the connection was closed");
  }
  return Error(Reason::kPermission, what + ": " + text);
}

}  // namespace

absl::Status DiagnoseConnection(const TlsFiles& files, const std::string& host,
                                int port) {
  const std::string where = "agent at " + host + ":" + std::to_string(port);
  SNAPSYNC_ASSIGN_OR_RETURN(const UniqueFd fd, Connect(host, port));
  const std::unique_ptr<SSL_CTX, FreeContext> context(
      SSL_CTX_new(TLS_client_method()));
  if (context == nullptr ||
      SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION) != 1 ||
      SSL_CTX_load_verify_file(context.get(), files.ca.c_str()) != 1 ||
      SSL_CTX_use_certificate_chain_file(context.get(),
                                         files.certificate.c_str()) != 1 ||
      SSL_CTX_use_PrivateKey_file(context.get(), files.key.c_str(),
                                  SSL_FILETYPE_PEM) != 1) {
    return HandshakeError("the certificate files can't be used");
  }
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  const std::unique_ptr<SSL, FreeConnection> connection(SSL_new(context.get()));
  static constexpr std::array<unsigned char, 3> kHttp2 = {2, 'h', '2'};
  SSL_set_alpn_protos(connection.get(), kHttp2.data(), kHttp2.size());
  X509_VERIFY_PARAM* expected = SSL_get0_param(connection.get());
  std::array<unsigned char, sizeof(in6_addr)> address;
  const bool is_address = ::inet_pton(AF_INET, host.c_str(), address.data()) ||
                          ::inet_pton(AF_INET6, host.c_str(), address.data());
  if (is_address) {
    X509_VERIFY_PARAM_set1_ip_asc(expected, host.c_str());
  } else {
    X509_VERIFY_PARAM_set1_host(expected, host.c_str(), 0);
    SSL_set_tlsext_host_name(connection.get(), host.c_str());
  }
  SSL_set_fd(connection.get(), fd.get());
  if (SSL_connect(connection.get()) != 1) {
    const long verified = SSL_get_verify_result(connection.get());
    if (verified != X509_V_OK) {
      ERR_clear_error();
      return Error(Reason::kPermission,
                   where + ": its certificate is not accepted: " +
                       X509_verify_cert_error_string(verified) +
                       " (checked with the CA in " + files.ca + ")");
    }
    return HandshakeError(where + ": the TLS handshake failed");
  }
  // In TLS 1.3 a refusal of our certificate comes with the first answer; an
  // HTTP/2 server speaks first.
  unsigned char first = 0;
  if (SSL_read(connection.get(), &first, 1) != 1) {
    return HandshakeError(where + ": it does not accept our certificate " +
                          files.certificate);
  }
  return absl::OkStatus();
}

}  // namespace snapsync::wire
