// SPDX-License-Identifier: Apache-2.0
#include "common/wire/tls.h"

#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <string_view>

#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace snapsync::wire {
namespace {

constexpr std::string_view kIdentityPrefix = "spiffe://snapsync/node/";
constexpr unsigned kReloadSeconds = 2;

template <auto kFree>
struct Freer {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using Bio = std::unique_ptr<BIO, Freer<BIO_free_all>>;
using Certificate = std::unique_ptr<X509, Freer<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY_free>>;
using Store = std::unique_ptr<X509_STORE, Freer<X509_STORE_free>>;
using StoreContext =
    std::unique_ptr<X509_STORE_CTX, Freer<X509_STORE_CTX_free>>;
using Names = std::unique_ptr<GENERAL_NAMES, Freer<GENERAL_NAMES_free>>;

absl::Status Trouble(const std::string& file, const std::string& what) {
  return Error(Reason::kPermission, file + ": " + what);
}

absl::StatusOr<Bio> OpenFile(const std::string& path, const char* option) {
  if (path.empty()) {
    return Error(Reason::kPermission,
                 std::string("no certificate: give --") + option +
                     ", or the key in [tls] of the configuration file "
                     "(certs/make-certs makes certificates)");
  }
  Bio bio(BIO_new_file(path.c_str(), "r"));
  if (bio == nullptr) {
    const int error = errno;
    ERR_clear_error();
    return PosixError(error, path + ": can't be opened", Reason::kPermission);
  }
  return bio;
}

absl::StatusOr<Certificate> ReadCertificate(const std::string& path,
                                            const char* option) {
  SNAPSYNC_ASSIGN_OR_RETURN(const Bio bio, OpenFile(path, option));
  Certificate certificate(
      PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  ERR_clear_error();
  if (certificate == nullptr) return Trouble(path, "holds no PEM certificate");
  if (X509_cmp_current_time(X509_get0_notBefore(certificate.get())) > 0) {
    return Trouble(path, "not valid yet; is the clock right?");
  }
  if (X509_cmp_current_time(X509_get0_notAfter(certificate.get())) < 0) {
    return Trouble(path, "expired; renew it with certs/make-certs --renew");
  }
  return certificate;
}

absl::StatusOr<std::string> NodeNameOf(const std::string& path,
                                       X509* certificate) {
  const Names names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  std::string name;
  int uris = 0;
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names.get());
       ++i) {
    const GENERAL_NAME* item = sk_GENERAL_NAME_value(names.get(), i);
    if (item->type != GEN_URI) continue;
    ++uris;
    const ASN1_IA5STRING* uri = item->d.uniformResourceIdentifier;
    const std::string_view text(
        reinterpret_cast<const char*>(ASN1_STRING_get0_data(uri)),
        static_cast<size_t>(ASN1_STRING_length(uri)));
    if (text.substr(0, kIdentityPrefix.size()) == kIdentityPrefix) {
      name = text.substr(kIdentityPrefix.size());
    }
  }
  if (uris != 1 || name.empty()) {
    return Trouble(path,
                   "needs exactly one URI among its subject alternative "
                   "names, spiffe://snapsync/node/NAME; found " +
                       std::to_string(uris) + " URIs");
  }
  return name;
}

absl::Status CheckIssuer(const TlsFiles& files, X509* ca, X509* certificate) {
  const Store store(X509_STORE_new());
  const StoreContext context(X509_STORE_CTX_new());
  if (store == nullptr || context == nullptr ||
      X509_STORE_add_cert(store.get(), ca) != 1 ||
      X509_STORE_CTX_init(context.get(), store.get(), certificate, nullptr) !=
          1) {
    return Trouble(files.certificate, "can't be checked: out of memory");
  }
  const bool good = X509_verify_cert(context.get()) == 1;
  const int error = X509_STORE_CTX_get_error(context.get());
  ERR_clear_error();
  if (good) return absl::OkStatus();
  return Trouble(files.certificate,
                 "was not issued by the CA in " + files.ca + " (" +
                     X509_verify_cert_error_string(error) + ")");
}

}  // namespace

void RestrictToTls13() {
  // gRPC 1.51 has no setting for the lowest version. With a TLS 1.2 cipher that
  // needs an RSA certificate as the only one, and certificates that are ECDSA,
  // 1.2 finds no cipher; 1.3 has its own list, AES-256-GCM first.
  ::setenv("GRPC_SSL_CIPHER_SUITES", "ECDHE-RSA-AES256-GCM-SHA384", 1);
}

absl::StatusOr<std::string> CheckTlsFiles(const TlsFiles& files) {
  SNAPSYNC_ASSIGN_OR_RETURN(const Certificate ca,
                            ReadCertificate(files.ca, "tls-ca"));
  SNAPSYNC_ASSIGN_OR_RETURN(const Certificate certificate,
                            ReadCertificate(files.certificate, "tls-cert"));
  SNAPSYNC_ASSIGN_OR_RETURN(const Bio bio, OpenFile(files.key, "tls-key"));
  struct stat facts {};
  if (::stat(files.key.c_str(), &facts) == 0 && (facts.st_mode & 077) != 0) {
    return Trouble(files.key,
                   "the private key can be read by others; "
                   "chmod 600 it");
  }
  const Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
  ERR_clear_error();
  if (key == nullptr) return Trouble(files.key, "holds no PEM private key");
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    ERR_clear_error();
    return Trouble(files.key,
                   "is not the key of the certificate " + files.certificate);
  }
  if (EVP_PKEY_base_id(key.get()) != EVP_PKEY_EC) {
    return Trouble(files.key,
                   "is not an ECDSA key; certs/make-certs makes "
                   "the right kind");
  }
  SNAPSYNC_RETURN_IF_ERROR(CheckIssuer(files, ca.get(), certificate.get()));
  return NodeNameOf(files.certificate, certificate.get());
}

std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(
    const TlsFiles& files) {
  grpc::experimental::TlsServerCredentialsOptions options(
      std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
          files.key, files.certificate, files.ca, kReloadSeconds));
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  options.set_cert_request_type(
      GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  return grpc::experimental::TlsServerCredentials(options);
}

std::shared_ptr<grpc::ChannelCredentials> MakeChannelCredentials(
    const TlsFiles& files) {
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(
      std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
          files.key, files.certificate, files.ca, kReloadSeconds));
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  return grpc::experimental::TlsCredentials(options);
}

absl::StatusOr<std::string> PeerName(const grpc::AuthContext& context) {
  const auto ids = context.FindPropertyValues("peer_spiffe_id");
  if (context.IsPeerAuthenticated() && ids.size() == 1) {
    const std::string_view id(ids[0].data(), ids[0].size());
    if (id.size() > kIdentityPrefix.size() &&
        id.substr(0, kIdentityPrefix.size()) == kIdentityPrefix) {
      return std::string(id.substr(kIdentityPrefix.size()));
    }
  }
  return Error(Reason::kPermission,
               "the peer's certificate does not hold exactly one URI "
               "spiffe://snapsync/node/NAME");
}

}  // namespace snapsync::wire
