// SPDX-License-Identifier: Apache-2.0
// Call, CallHandler, LoopHandlers: what the transport and those who answer calls say to each other.
//
// Order of events: OnCall, then any number of OnMessage, then OnHalfClose; OnCancel may cut this off at any point and
// is the last event. Order of answers: SendInitialMetadata at most once, any number of SendMessage, Finish exactly
// once, after OnCancel too: a call lives until it is finished, so a handler that still works on it may hold on to it.
// Thread-safety: everything here happens on the thread of the loop that owns the call.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/buffer.h"
#include "core/status.h"
#include "transport/compression.h"

namespace gristmill {

class Call;
class EventLoop;

/// Names are in lower case; values whose name ends in "-bin" are the bytes, not their base64.
using Metadata = std::vector<std::pair<std::string, std::string>>;

/// What is known of who is at the other end, by the names of gRPC's auth_context. Empty without TLS.
using AuthProperties = std::vector<std::pair<std::string, std::string>>;

class CallHandler {
 public:
  virtual ~CallHandler() = default;

  /// Whether calls to this handler keep their path, metadata, peer and auth; without, headers cost nothing.
  virtual bool wants_metadata() const = 0;

  virtual void OnCall(Call* call) = 0;
  virtual void OnMessage(Call* call, Buffer message) = 0;
  /// The client sends no more.
  virtual void OnHalfClose(Call* call) = 0;
  /// All messages given to SendMessage have been handed to the connection.
  virtual void OnSent(Call* call) = 0;
  /// The client has gone or the deadline has passed. No answer will reach the client any more; finish the call soon.
  virtual void OnCancel(Call* call) = 0;
};

/// The handlers of one loop.
class LoopHandlers {
 public:
  virtual ~LoopHandlers() = default;

  /// Never null; a handler for unknown paths is up to the implementation.
  virtual CallHandler* Find(std::string_view path) = 0;

  /// After all input of one turn of the loop has been read, before answers are written.
  virtual void OnTurnEnd() = 0;
};

class Call {
 public:
  // The first four are empty unless the handler wants them.
  /// E.g. "/package.Service/Method".
  virtual const std::string& path() const = 0;
  virtual const Metadata& metadata() const = 0;
  /// As gRPC writes addresses: "ipv4:127.0.0.1:5000".
  virtual const std::string& peer() const = 0;
  virtual const AuthProperties& auth() const = 0;
  virtual int64_t arrival_ns() const = 0;
  /// kNever if the client set none.
  virtual int64_t deadline_ns() const = 0;

  /// How messages are compressed, if the client can undo it; until something is sent. At first as the server's options
  /// say.
  virtual void SetEncoding(Encoding encoding) = 0;
  virtual void SendInitialMetadata(const Metadata& metadata) = 0;
  virtual void SendMessage(Buffer message, bool may_compress = true) = 0;
  virtual void Finish(const Status& status, const Metadata& trailing_metadata) = 0;

  /// While not reading, the client may send no more than its window. Reading at first.
  virtual void SetReading(bool reading) = 0;

  /// For the handler: whatever it wants to find again at the next event.
  void* handler_state = nullptr;

 protected:
  virtual ~Call() = default;
};

}  // namespace gristmill
