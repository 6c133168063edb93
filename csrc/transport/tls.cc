// SPDX-License-Identifier: Apache-2.0
#include "transport/tls.h"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <string_view>
#include <utility>

namespace gristmill {
namespace {

// As ALPN writes it: a length before the name.
constexpr std::string_view kHttp2 = "\x02h2";
// What RFC 9113, 9.2.2 leaves of TLS 1.2's; those of 1.3 are all good.
constexpr const char* kTls12Ciphers = "ECDHE+AESGCM:ECDHE+CHACHA20";
// At most what OpenSSL may hold of a record that has come in part, and hands out with the next bytes.
constexpr size_t kLargestRecordBytes = SSL3_RT_MAX_PLAIN_LENGTH;
// What a connection that has sent much keeps for its next answers.
constexpr size_t kKeptBytes = 64 << 10;

template <auto kFree>
struct Free {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using BioPtr = std::unique_ptr<BIO, Free<BIO_free>>;
using X509Ptr = std::unique_ptr<X509, Free<X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;

/// The reason of the last error, or `otherwise`; forgets all of them.
std::string TakeError(const char* otherwise) {
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  std::string text = reason != nullptr ? reason : otherwise;
  ERR_clear_error();
  return text;
}

Status Refuse(const std::string& what, const char* otherwise) {
  return InvalidArgument(what + ": " + TakeError(otherwise));
}

BioPtr ReaderOf(const std::string& pem) {
  return BioPtr(BIO_new_mem_buf(pem.data(), static_cast<int>(std::min<size_t>(pem.size(), INT_MAX))));
}

X509Ptr NextCertificate(BIO* reader) { return X509Ptr(PEM_read_bio_X509(reader, nullptr, nullptr, nullptr)); }

/// Whether reading stopped at the end of the text and not at something that is no certificate.
bool IsAtEnd() {
  const unsigned long error = ERR_peek_last_error();
  return ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
}

Status UseCertificates(SSL_CTX* context, const std::string& pem) {
  const BioPtr reader = ReaderOf(pem);
  const X509Ptr own = NextCertificate(reader.get());
  if (own == nullptr) return Refuse("the server's certificate cannot be read", "expected PEM");
  if (SSL_CTX_use_certificate(context, own.get()) != 1) return Refuse("the server's certificate", "not usable");
  while (X509Ptr issuer = NextCertificate(reader.get())) {
    if (SSL_CTX_add1_chain_cert(context, issuer.get()) != 1) return Refuse("the server's chain", "not usable");
  }
  if (!IsAtEnd()) return Refuse("the server's chain cannot be read", "expected PEM");
  ERR_clear_error();
  return Status::Ok();
}

Status UseKey(SSL_CTX* context, const std::string& pem) {
  // Without this, OpenSSL would ask for a password on the terminal.
  const auto no_password = [](char*, int, int, void*) { return -1; };
  const BioPtr reader = ReaderOf(pem);
  const KeyPtr key(PEM_read_bio_PrivateKey(reader.get(), nullptr, no_password, nullptr));
  if (key == nullptr) return Refuse("the private key cannot be read", "expected PEM that is not encrypted");
  if (SSL_CTX_use_PrivateKey(context, key.get()) != 1 || SSL_CTX_check_private_key(context) != 1) {
    return Refuse("the private key does not belong to the certificate", "they differ");
  }
  return Status::Ok();
}

Status RequireClientCertificates(SSL_CTX* context, const std::string& roots) {
  const BioPtr reader = ReaderOf(roots);
  int count = 0;
  while (X509Ptr root = NextCertificate(reader.get())) {
    if (X509_STORE_add_cert(SSL_CTX_get_cert_store(context), root.get()) != 1 ||
        SSL_CTX_add_client_CA(context, root.get()) != 1) {
      return Refuse("the clients' root certificates", "not usable");
    }
    ++count;
  }
  if (!IsAtEnd() || count == 0) return Refuse("the clients' root certificates cannot be read", "expected PEM");
  ERR_clear_error();
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  return Status::Ok();
}

int SelectHttp2(SSL*, const unsigned char** selected, unsigned char* size, const unsigned char* offered,
                unsigned int offered_size, void*) {
  const auto* ours = reinterpret_cast<const unsigned char*>(kHttp2.data());
  auto** out = const_cast<unsigned char**>(selected);
  const int result = SSL_select_next_proto(out, size, ours, kHttp2.size(), offered, offered_size);
  return result == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

Status MakeContext(const TlsOptions& options, std::shared_ptr<SSL_CTX>* made) {
  ERR_clear_error();
  std::shared_ptr<SSL_CTX> context(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  if (context == nullptr) return Internal(TakeError("OpenSSL cannot make a context"));
  SSL_CTX* raw = context.get();
  SSL_CTX_set_min_proto_version(raw, TLS1_2_VERSION);
  SSL_CTX_set_options(raw, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_mode(raw, SSL_MODE_RELEASE_BUFFERS);  // idle connections then hold little
  SSL_CTX_set_cipher_list(raw, kTls12Ciphers);
  SSL_CTX_set_alpn_select_cb(raw, SelectHttp2, nullptr);
  // Sessions can be resumed by tickets, whose key is this context's: an update ends all of them.
  SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);
  constexpr std::string_view kName = "gristmill";
  SSL_CTX_set_session_id_context(raw, reinterpret_cast<const unsigned char*>(kName.data()), kName.size());
  if (Status status = UseCertificates(raw, options.certificate_chain); !status.ok()) return status;
  if (Status status = UseKey(raw, options.private_key); !status.ok()) return status;
  if (!options.client_roots.empty()) {
    if (Status status = RequireClientCertificates(raw, options.client_roots); !status.ok()) return status;
  }
  *made = std::move(context);
  return Status::Ok();
}

void AddClientCertificate(X509* certificate, AuthProperties* properties) {
  const auto text_of = [](const ASN1_STRING* text) {
    return std::string(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
                       static_cast<size_t>(ASN1_STRING_length(text)));
  };
  const X509_NAME* subject = X509_get_subject_name(certificate);
  for (int at = -1; (at = X509_NAME_get_index_by_NID(subject, NID_commonName, at)) >= 0;) {
    properties->emplace_back("x509_common_name", text_of(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at))));
  }
  const auto free_names = [](GENERAL_NAMES* names) { GENERAL_NAMES_free(names); };
  const std::unique_ptr<GENERAL_NAMES, decltype(free_names)> names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)), free_names);
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    std::string text;
    if (name->type == GEN_DNS || name->type == GEN_URI || name->type == GEN_EMAIL) {
      text = text_of(name->d.ia5);
    } else if (name->type == GEN_IPADD) {
      const std::string address = text_of(name->d.iPAddress);
      std::array<char, INET6_ADDRSTRLEN> written{};
      const int family = address.size() == sizeof(in_addr) ? AF_INET : AF_INET6;
      if (address.size() != sizeof(in_addr) && address.size() != sizeof(in6_addr)) continue;
      text = inet_ntop(family, address.data(), written.data(), written.size());
    } else {
      continue;
    }
    properties->emplace_back("x509_subject_alternative_name", std::move(text));
  }
  const BioPtr pem(BIO_new(BIO_s_mem()));
  if (pem == nullptr || PEM_write_bio_X509(pem.get(), certificate) != 1) return;
  char* data = nullptr;
  const long size = BIO_get_mem_data(pem.get(), &data);
  properties->emplace_back("x509_pem_cert", std::string(data, static_cast<size_t>(size)));
}

/// TLS between the descriptor and OpenSSL's records, which are read and written in memory: a turn of the loop has one
/// recv and one send, as without TLS.
class TlsSocket final : public Socket {
 public:
  TlsSocket(int fd, std::shared_ptr<SSL_CTX> context) : Socket(fd), context_(std::move(context)) {
    ssl_.reset(SSL_new(context_.get()));
    if (ssl_ == nullptr) return;
    BIO* wire = BIO_new(WireMethod());
    BIO_set_data(wire, this);
    BIO_set_init(wire, 1);
    SSL_set_bio(ssl_.get(), wire, wire);
    SSL_set_accept_state(ssl_.get());
  }
  ~TlsSocket() override {
    if (!established_) return;
    ERR_clear_error();
    SSL_shutdown(ssl_.get());  // so that the client knows that nothing was cut off; nobody waits for its answer
    Send();
  }

  IoOutcome Read(std::span<std::byte> scratch, std::span<const std::byte>* bytes) override;
  IoOutcome Write(WriteQueue* out) override;
  bool is_established() const override { return established_; }
  AuthProperties auth() const override;

 private:
  static const BIO_METHOD* WireMethod();
  bool Handshake();
  IoOutcome Send();

  const std::shared_ptr<SSL_CTX> context_;
  std::unique_ptr<SSL, Free<SSL_free>> ssl_;
  bool established_ = false;
  bool ended_ = false;                   // by the client, or by an error
  std::span<const std::byte> received_;  // while it is being read
  std::vector<std::byte> to_send_;
  size_t sent_ = 0;
};

const BIO_METHOD* TlsSocket::WireMethod() {
  static const BIO_METHOD* const kMethod = [] {
    BIO_METHOD* method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "gristmill wire");
    BIO_meth_set_read_ex(method, [](BIO* wire, char* into, size_t size, size_t* read) {
      auto& received = static_cast<TlsSocket*>(BIO_get_data(wire))->received_;
      BIO_clear_retry_flags(wire);
      *read = std::min(size, received.size());
      if (*read == 0) {
        BIO_set_retry_read(wire);
        return 0;
      }
      std::memcpy(into, received.data(), *read);
      received = received.subspan(*read);
      return 1;
    });
    BIO_meth_set_write_ex(method, [](BIO* wire, const char* from, size_t size, size_t* written) {
      auto& to_send = static_cast<TlsSocket*>(BIO_get_data(wire))->to_send_;
      const auto* bytes = reinterpret_cast<const std::byte*>(from);
      to_send.insert(to_send.end(), bytes, bytes + size);
      *written = size;
      return 1;
    });
    BIO_meth_set_ctrl(method, [](BIO*, int command, long, void*) -> long { return command == BIO_CTRL_FLUSH ? 1 : 0; });
    return method;
  }();
  return kMethod;
}

IoOutcome TlsSocket::Read(std::span<std::byte> scratch, std::span<const std::byte>* bytes) {
  *bytes = {};
  if (ended_ || ssl_ == nullptr) return IoOutcome::kClosed;
  // What is decrypted is no longer than what came, but for a record of which a part came earlier.
  const std::span<std::byte> wire = scratch.subspan((scratch.size() + kLargestRecordBytes) / 2);
  size_t size = 0;
  if (const IoOutcome outcome = Receive(wire, &size); outcome != IoOutcome::kDone) return outcome;
  received_ = wire.first(size);
  ERR_clear_error();
  if (!established_ && !Handshake()) {
    if (!ended_) return IoOutcome::kDone;
    Send();  // the alert that says why
    return IoOutcome::kClosed;
  }
  size_t decrypted = 0;
  while (true) {
    size_t count = 0;
    const int result = SSL_read_ex(ssl_.get(), scratch.data() + decrypted, scratch.size() - decrypted, &count);
    if (result != 1) {
      ended_ = SSL_get_error(ssl_.get(), result) != SSL_ERROR_WANT_READ;
      break;
    }
    decrypted += count;
  }
  received_ = {};
  *bytes = scratch.first(decrypted);
  if (!ended_) return IoOutcome::kDone;
  if (decrypted == 0) Send();
  return decrypted > 0 ? IoOutcome::kDone : IoOutcome::kClosed;
}

bool TlsSocket::Handshake() {
  const int result = SSL_do_handshake(ssl_.get());
  if (result != 1) {
    ended_ = SSL_get_error(ssl_.get(), result) != SSL_ERROR_WANT_READ;
    return false;
  }
  const unsigned char* protocol = nullptr;
  unsigned int size = 0;
  SSL_get0_alpn_selected(ssl_.get(), &protocol, &size);
  // A client that offers no protocol at all has not been refused as yet.
  established_ = size == kHttp2.size() - 1;
  ended_ = !established_;
  return established_;
}

IoOutcome TlsSocket::Write(WriteQueue* out) {
  if (ssl_ == nullptr) return IoOutcome::kClosed;
  if (const IoOutcome outcome = Send(); outcome != IoOutcome::kDone || out->size_bytes() == 0) return outcome;
  bool failed = false;
  ERR_clear_error();
  out->TakeAll([&](std::span<const std::byte> part) {
    size_t written = 0;
    failed = failed || SSL_write_ex(ssl_.get(), part.data(), part.size(), &written) != 1;
  });
  return failed ? IoOutcome::kClosed : Send();
}

IoOutcome TlsSocket::Send() {
  while (sent_ < to_send_.size()) {
    const ssize_t result = send(fd(), to_send_.data() + sent_, to_send_.size() - sent_, MSG_NOSIGNAL);
    if (result < 0 && errno == EINTR) continue;
    if (result < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? IoOutcome::kBlocked : IoOutcome::kClosed;
    sent_ += static_cast<size_t>(result);
  }
  sent_ = 0;
  to_send_.clear();
  if (to_send_.capacity() > kKeptBytes) std::vector<std::byte>().swap(to_send_);
  return IoOutcome::kDone;
}

AuthProperties TlsSocket::auth() const {
  AuthProperties properties = {{"transport_security_type", "ssl"},
                               {"security_level", "TSI_PRIVACY_AND_INTEGRITY"},
                               {"ssl_session_reused", SSL_session_reused(ssl_.get()) == 1 ? "true" : "false"}};
  if (const X509Ptr certificate(SSL_get1_peer_certificate(ssl_.get())); certificate != nullptr) {
    AddClientCertificate(certificate.get(), &properties);
  }
  return properties;
}

}  // namespace

Status TlsContext::Create(const TlsOptions& options, std::shared_ptr<TlsContext>* context) {
  std::shared_ptr<TlsContext> created(new TlsContext());
  Status status = created->Update(options);
  if (status.ok()) *context = std::move(created);
  return status;
}

Status TlsContext::Update(const TlsOptions& options) {
  std::shared_ptr<SSL_CTX> next;
  if (Status status = MakeContext(options, &next); !status.ok()) return status;
  MutexLock lock(mu_);
  current_ = std::move(next);
  return Status::Ok();
}

std::unique_ptr<Socket> TlsContext::Accept(int fd) const {
  std::shared_ptr<SSL_CTX> context;
  {
    MutexLock lock(mu_);
    context = current_;
  }
  return std::make_unique<TlsSocket>(fd, std::move(context));
}

}  // namespace gristmill
