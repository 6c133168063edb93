// SPDX-License-Identifier: Apache-2.0
// TlsContext: a server's certificate, and TLS on the connections of its port.
//
// TLS 1.2 and 1.3, HTTP/2 by ALPN only. With `client_roots`, every client must show a certificate that they vouch for.
// Thread-safety: thread-safe. A connection keeps the certificates that it was accepted with.
// Errors: kInvalidArgument, with OpenSSL's reason. A handshake that fails ends with TLS's alert.
#pragma once

#include <openssl/types.h>

#include <memory>
#include <string>

#include "core/mutex.h"
#include "core/status.h"
#include "transport/socket.h"

namespace gristmill {

/// All PEM.
struct TlsOptions {
  std::string certificate_chain;  // the server's own first
  std::string private_key;        // not encrypted
  std::string client_roots;       // empty: clients are not asked for certificates
};

class TlsContext {
 public:
  static Status Create(const TlsOptions& options, std::shared_ptr<TlsContext>* context);

  /// For connections from now on. After an error everything stays as it was.
  Status Update(const TlsOptions& options);

  /// TLS on an accepted, non-blocking socket, which it takes over.
  std::unique_ptr<Socket> Accept(int fd) const;

 private:
  TlsContext() = default;

  mutable Mutex mu_;
  std::shared_ptr<SSL_CTX> current_ GUARDED_BY(mu_);
};

}  // namespace gristmill
