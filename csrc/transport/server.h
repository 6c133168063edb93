// SPDX-License-Identifier: Apache-2.0
// TransportServer: listeners and event loops of a gRPC server.
//
// Life: Open -> Listen any number of times -> Start -> Drain -> Stop -> destruction. Each loop has a thread, and
// handlers of its own; connections are dealt out to the loops in turn and stay there. Thread-safety: one thread at a
// time calls it. Blocking: Stop, until every handler has finished every call.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/buffer.h"
#include "core/clock.h"
#include "core/status.h"
#include "transport/call.h"
#include "transport/connection.h"
#include "transport/event_loop.h"
#include "transport/socket.h"
#include "transport/tls.h"

namespace gristmill {

struct ServerOptions {
  int io_threads = 1;
  bool reuse_port = false;
  /// Of all received messages that are not answered yet; 0: no limit. Each loop has its part of it.
  size_t max_received_bytes = 0;
  TransportOptions transport;
};

class TransportServer {
 public:
  using MakeHandlers = std::function<std::unique_ptr<LoopHandlers>(EventLoop* loop)>;

  /// `clock` outlives the server. `make_handlers` is called once for each loop, by Open.
  TransportServer(ServerOptions options, Clock* clock, MakeHandlers make_handlers);
  ~TransportServer();

  Status Open();

  /// `address`: "host:port", "[ipv6]:port" or "unix:path". `*port`: the one that was bound; 0 for a path.
  Status Listen(const std::string& address, int* port, std::shared_ptr<const TlsContext> tls = nullptr);

  void Start();
  /// Takes no new connection and tells clients to take new calls elsewhere.
  void Drain();
  /// Closes all connections and ends the loops.
  void Stop();

  // From any thread:
  size_t connections() const;
  /// Calls that their handlers have not finished.
  size_t calls() const;

 private:
  class Listener;
  struct Loop {
    Loop(Clock* clock, const BufferPoolOptions& options) : events(clock), buffers(options) {}

    EventLoop events;
    BufferPool buffers;
    std::unique_ptr<LoopHandlers> handlers;
    std::unique_ptr<ConnectionSet> connections;
    std::thread thread;
  };

  Status Bind(const std::string& address, int* fd, int* port) const;
  void Accepted(std::unique_ptr<Socket> socket, std::string peer);

  const ServerOptions options_;
  Clock& clock_;
  const MakeHandlers make_handlers_;
  std::vector<std::unique_ptr<Loop>> loops_;
  std::vector<std::unique_ptr<Listener>> listeners_;  // on the first loop
  size_t next_loop_ = 0;
  bool started_ = false;
  bool stopped_ = false;
};

}  // namespace gristmill
