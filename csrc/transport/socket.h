// SPDX-License-Identifier: Apache-2.0
// Socket: the bytes of one connection, as they are on the wire or inside of TLS.
//
// Ownership: owns its descriptor. Thread-safety: its loop's thread only. Blocking: never.
#pragma once

#include <cstddef>
#include <span>

#include "transport/call.h"
#include "transport/write_queue.h"

namespace gristmill {

class Socket {
 public:
  /// Takes over a connected, non-blocking socket.
  explicit Socket(int fd) : fd_(fd) {}
  virtual ~Socket();
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  int fd() const { return fd_; }

  /// Reads once what has come. `*bytes` lie in `scratch`; there may be none of them although there was something to
  /// read.
  virtual IoOutcome Read(std::span<std::byte> scratch, std::span<const std::byte>* bytes);

  /// Writes what `out` holds, and what the socket itself has to say.
  virtual IoOutcome Write(WriteQueue* out) { return out->WriteTo(fd_); }

  /// Whether bytes of `Write` reach the client yet.
  virtual bool is_established() const { return true; }

  virtual AuthProperties auth() const { return {}; }

 protected:
  /// recv() into `buffer`.
  IoOutcome Receive(std::span<std::byte> buffer, size_t* size) const;

 private:
  const int fd_;
};

}  // namespace gristmill
