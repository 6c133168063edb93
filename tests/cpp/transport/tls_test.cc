// SPDX-License-Identifier: Apache-2.0
#include "transport/tls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <thread>

#include "transport/certificates.h"
#include "transport/grpc_frames.h"
#include "transport/http2_client.h"
#include "transport/server_fixture.h"

namespace gristmill {
namespace {

using testing::HasSubstr;
using testing::Pair;
using testing::UnorderedElementsAre;

class TlsTest : public ServerTest {
 protected:
  TestAuthority authority_;
  TestAuthority stranger_;
  TestCertificate server_certificate_ = authority_.Issue("server");
  std::shared_ptr<TlsContext> context_;

  TlsOptions Options(const std::string& client_roots = "") const {
    return {.certificate_chain = server_certificate_.pem + authority_.pem(),
            .private_key = server_certificate_.key_pem,
            .client_roots = client_roots};
  }

  void StartTls(const TlsOptions& tls, ServerOptions options = {}) {
    const Status status = TlsContext::Create(tls, &context_);
    ASSERT_TRUE(status.ok()) << status.message();
    Start(options, context_);
  }

  using Context = std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)>;

  /// A client that trusts the authority. `protocol`: what it offers in ALPN, if not empty.
  Context Client(const std::string& protocol = "h2", const TestCertificate& own = {}) const {
    Context context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
    const std::string pem = authority_.pem();
    BIO* bio = BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()));
    X509* root = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr);
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context.get()), root);
    X509_free(root);
    BIO_free(bio);
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
    if (!protocol.empty()) {
      const std::string offer = static_cast<char>(protocol.size()) + protocol;
      SSL_CTX_set_alpn_protos(context.get(), reinterpret_cast<const unsigned char*>(offer.data()),
                              static_cast<unsigned int>(offer.size()));
    }
    if (!own.pem.empty()) {
      BIO* certificate_bio = BIO_new_mem_buf(own.pem.data(), static_cast<int>(own.pem.size()));
      X509* certificate = PEM_read_bio_X509(certificate_bio, nullptr, nullptr, nullptr);
      BIO* key_bio = BIO_new_mem_buf(own.key_pem.data(), static_cast<int>(own.key_pem.size()));
      EVP_PKEY* key = PEM_read_bio_PrivateKey(key_bio, nullptr, nullptr, nullptr);
      SSL_CTX_use_certificate(context.get(), certificate);
      SSL_CTX_use_PrivateKey(context.get(), key);
      X509_free(certificate);
      EVP_PKEY_free(key);
      BIO_free(certificate_bio);
      BIO_free(key_bio);
    }
    return context;
  }

  /// "0" if the client is served, "" if it is refused at any point.
  std::string Try(SSL_CTX* client) const {
    ERR_clear_error();
    try {
      Http2Client connection(port_, {.tls = client});
      return connection.Call(GrpcHeaders("/t/Echo"), GrpcFrame("x")).status();
    } catch (const std::runtime_error&) {
      return "";
    }
  }
};

TEST_F(TlsTest, CarriesCallsSmallAndLarge) {
  StartTls(Options(), {.io_threads = 2});
  const Context context = Client();
  Http2Client client(port_, {.tls = context.get()});
  EXPECT_EQ(client.Call(GrpcHeaders("/t/Echo"), GrpcFrame("hello")).body, GrpcFrame("hello"));
  const std::string text(20'000'000, 'x');
  EXPECT_TRUE(client.Call(GrpcHeaders("/t/Echo"), GrpcFrame(text)).body == GrpcFrame(text));
  std::map<int32_t, std::string> sent;
  for (int i = 0; i < 100; ++i) {
    sent[client.Begin(GrpcHeaders("/t/Echo"), GrpcFrame(std::to_string(i)))] = GrpcFrame(std::to_string(i));
  }
  for (const auto& [id, frame] : sent) EXPECT_EQ(client.Await(id).body, frame);
  const std::lock_guard lock(log_.mu);
  EXPECT_THAT(log_.auth,
              UnorderedElementsAre(Pair("transport_security_type", "ssl"), Pair("ssl_session_reused", "false"),
                                   Pair("security_level", "TSI_PRIVACY_AND_INTEGRITY")));
}

TEST_F(TlsTest, SpeaksHttp2AndNothingElse) {
  StartTls(Options());
  EXPECT_EQ(Try(Client("h2").get()), "0");
  EXPECT_EQ(Try(Client("http/1.1").get()), "");
  EXPECT_EQ(Try(Client("").get()), "");
  const Context old = Client();
  SSL_CTX_set_max_proto_version(old.get(), TLS1_1_VERSION);
  EXPECT_EQ(Try(old.get()), "");
  const Context tls12 = Client();
  SSL_CTX_set_max_proto_version(tls12.get(), TLS1_2_VERSION);
  EXPECT_EQ(Try(tls12.get()), "0");
}

TEST_F(TlsTest, ClosesConnectionsThatSpeakNoTls) {
  StartTls(Options(), {.transport = {.handshake_timeout_ns = 50'000'000}});
  Http2Client plain(port_);
  plain.SendRaw("");  // flushes HTTP/2's preface
  EXPECT_FALSE(plain.ReadUntil([] { return false; }));
  Http2Client silent(port_);
  EXPECT_FALSE(silent.ReadUntil([] { return false; }) || silent.has_goaway());
  EXPECT_EQ(Try(Client().get()), "0");
  AwaitTrue([&] { return server_->connections() == 0; });
}

TEST_F(TlsTest, AsksForCertificatesOfItsClientsAuthority) {
  StartTls(Options(authority_.pem()));
  EXPECT_EQ(Try(Client().get()), "");
  EXPECT_EQ(Try(Client("h2", stranger_.Issue("alice")).get()), "");
  const TestCertificate alice = authority_.Issue("alice");
  EXPECT_EQ(Try(Client("h2", alice).get()), "0");
  const std::lock_guard lock(log_.mu);
  EXPECT_THAT(log_.auth,
              UnorderedElementsAre(
                  Pair("transport_security_type", "ssl"), Pair("ssl_session_reused", "false"),
                  Pair("security_level", "TSI_PRIVACY_AND_INTEGRITY"), Pair("x509_common_name", "alice"),
                  Pair("x509_subject_alternative_name", "alice"), Pair("x509_subject_alternative_name", "127.0.0.1"),
                  Pair("x509_subject_alternative_name", "spiffe://test/alice"), Pair("x509_pem_cert", alice.pem)));
}

TEST_F(TlsTest, GivesNewConnectionsTheNewCertificate) {
  StartTls(Options());
  const Context client = Client();
  Http2Client before(port_, {.tls = client.get()});
  EXPECT_EQ(before.Call(GrpcHeaders("/t/Echo"), GrpcFrame("x")).status(), "0");

  const TestCertificate foreign = stranger_.Issue("server");
  ASSERT_TRUE(
      context_->Update({.certificate_chain = foreign.pem, .private_key = foreign.key_pem, .client_roots = ""}).ok());
  EXPECT_EQ(Try(client.get()), "");  // which does not trust the stranger
  EXPECT_EQ(before.Call(GrpcHeaders("/t/Echo"), GrpcFrame("x")).status(), "0");

  EXPECT_FALSE(
      context_
          ->Update({.certificate_chain = server_certificate_.pem, .private_key = foreign.key_pem, .client_roots = ""})
          .ok());
  EXPECT_EQ(Try(client.get()), "");  // as before
  ASSERT_TRUE(context_->Update(Options()).ok());
  EXPECT_EQ(Try(client.get()), "0");
}

TEST_F(TlsTest, SaysWhatIsWrongWithItsFiles) {
  const auto message = [](const TlsOptions& options) {
    std::shared_ptr<TlsContext> context;
    const Status status = TlsContext::Create(options, &context);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    return status.message();
  };
  TlsOptions options = Options();
  options.certificate_chain = "nonsense";
  EXPECT_THAT(message(options), HasSubstr("certificate cannot be read"));
  options = Options();
  options.certificate_chain = server_certificate_.pem + "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
  EXPECT_THAT(message(options), HasSubstr("chain cannot be read"));
  options = Options();
  options.private_key = "";
  EXPECT_THAT(message(options), HasSubstr("private key cannot be read"));
  options.private_key = stranger_.Issue("x").key_pem;
  EXPECT_THAT(message(options), HasSubstr("does not belong to the certificate"));
  EXPECT_THAT(message(Options("nonsense")), HasSubstr("root certificates cannot be read"));
}

TEST_F(TlsTest, ServesManyHandshakesOnSeveralLoops) {
  StartTls(Options(), {.io_threads = 3});
  const Context client = Client();
  std::vector<std::thread> threads;
  std::atomic<int> served{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5; ++i) served += Try(client.get()) == "0";
    });
  }
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(context_->Update(Options()).ok());
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(served, 20);
  AwaitTrue([&] { return server_->connections() == 0; });
}

}  // namespace
}  // namespace gristmill
