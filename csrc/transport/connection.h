// SPDX-License-Identifier: Apache-2.0
// Connection: one client's HTTP/2 connection and the gRPC calls on it.
//
// Thread-safety: its loop's thread only. Ownership: the loop's ConnectionSet owns it; a call that its handler has not
// finished outlives it.
// Errors: a call that breaks gRPC is answered with a status, or with an HTTP status where no gRPC client can be meant;
// a connection that breaks HTTP/2 is closed with the error that HTTP/2 has for it.
#pragma once

#include <nghttp2/nghttp2.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "core/clock.h"
#include "core/status.h"
#include "transport/call.h"
#include "transport/compression.h"
#include "transport/event_loop.h"
#include "transport/session_memory.h"
#include "transport/socket.h"
#include "transport/write_queue.h"

namespace gristmill {

struct TransportOptions {
  size_t max_message_bytes = 0;  // of one received or sent; 0: no limit
  /// Of what has come of one connection's unfinished messages, and of answers that wait for it to read; 0: no limit.
  size_t max_connection_bytes = 0;
  /// Of answers, for clients that can undo it.
  Encoding response_encoding = Encoding::kIdentity;
  uint32_t max_concurrent_streams = 1024;
  uint32_t max_header_bytes = 16 << 10;
  /// At first; windows grow for large messages, up to kMaxWindowBytes.
  int32_t stream_window_bytes = 1 << 20;
  int32_t connection_window_bytes = 16 << 20;

  /// A client not heard of for so long is sent a ping, and let go if it does not answer it in time.
  int64_t keepalive_time_ns = 7'200'000'000'000;
  int64_t keepalive_timeout_ns = 20'000'000'000;
  /// Pings of a client that come faster than this, with nothing sent to it between them, count against it.
  int64_t min_ping_interval_ns = 5'000'000'000;
  /// A connection without calls for so long, or of this age, is told to go; at the end of the grace period it has to.
  int64_t max_idle_ns = kNever;
  int64_t max_age_ns = kNever;
  int64_t max_age_grace_ns = kNever;
  /// Within which a new connection has to have said that it speaks HTTP/2.
  int64_t handshake_timeout_ns = 20'000'000'000;
};

inline constexpr int32_t kMaxWindowBytes = 64 << 20;

class Connection;
class Stream;

/// All connections of one loop, and what they share.
class ConnectionSet {
 public:
  /// All arguments but the options outlive the set.
  ConnectionSet(EventLoop* loop, BufferPool* buffers, LoopHandlers* handlers, const TransportOptions& options);
  ~ConnectionSet();

  void Add(std::unique_ptr<Socket> socket, std::string peer);

  /// Tells every client to take new calls elsewhere. Connections close as their last calls end.
  void Drain();
  /// Closes all connections, whatever calls are on them.
  void CloseAll();

  // From any thread:
  size_t connections() const { return connection_count_.load(std::memory_order_relaxed); }
  /// Calls that their handlers have not finished, on open connections or not.
  size_t calls() const { return calls_.load(std::memory_order_relaxed); }

 private:
  friend class Connection;
  friend class Stream;

  void Flush();
  void Remove(Connection* connection);

  EventLoop& loop_;
  BufferPool& buffers_;
  LoopHandlers& handlers_;
  const TransportOptions options_;
  nghttp2_session_callbacks* callbacks_ = nullptr;
  nghttp2_option* session_options_ = nullptr;
  SessionMemory session_memory_;
  bool draining_ = false;
  std::atomic<size_t> calls_{0};
  std::atomic<size_t> connection_count_{0};
  std::vector<Connection*> connections_;
  std::vector<Connection*> dirty_;  // have something to write
  std::vector<std::byte> read_buffer_;
};

class Connection final : public Watcher {
 public:
  Connection(ConnectionSet* set, std::unique_ptr<Socket> socket, std::string peer);
  ~Connection() override;

  void OnEvents(uint32_t epoll_events) override;

 private:
  friend class ConnectionSet;
  friend class Stream;

  bool Open();
  void Drain();
  void MarkDirty();
  /// Lets `stream`, and the connection, receive as much without an answer of ours.
  void GrowWindows(int32_t stream_id, int32_t window_bytes);
  const std::shared_ptr<const AuthProperties>& Auth();
  void OnKeepalive();
  void OnIdle();
  void OnAge();
  void OnPing();
  bool IsHeaderBomb() const;
  std::array<Timer*, 5> Timers() {
    return {&drain_timer_, &keepalive_timer_, &idle_timer_, &age_timer_, &handshake_timer_};
  }
  void SetTimer(Timer* timer, int64_t from_ns, int64_t delay_ns);
  void Write();
  void Close();

  // nghttp2's callbacks; `user_data` is the connection.
  static int OnBeginHeaders(nghttp2_session*, const nghttp2_frame* frame, void* user_data);
  static int OnHeader(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                      const uint8_t* value, size_t value_size, uint8_t flags, void* user_data);
  static int OnFrame(nghttp2_session*, const nghttp2_frame* frame, void* user_data);
  static int OnData(nghttp2_session*, uint8_t flags, int32_t id, const uint8_t* data, size_t size, void* user_data);
  static int OnFrameSent(nghttp2_session*, const nghttp2_frame* frame, void* user_data);
  static int OnStreamClose(nghttp2_session*, int32_t id, uint32_t error, void* user_data);
  static ssize_t OnWantsData(nghttp2_session*, int32_t id, uint8_t* buffer, size_t size, uint32_t* flags,
                             nghttp2_data_source* source, void* user_data);
  static int OnSendData(nghttp2_session*, nghttp2_frame* frame, const uint8_t* head, size_t size,
                        nghttp2_data_source* source, void* user_data);

  Stream* StreamOf(int32_t id) const;

  ConnectionSet& set_;
  std::unique_ptr<Socket> socket_;  // null once closed
  const std::string peer_;
  std::shared_ptr<const AuthProperties> auth_;  // once a call has asked
  size_t place_ = 0;                            // in set_.connections_
  bool is_dirty_ = false;
  bool is_closed_ = false;
  bool waits_to_write_ = false;
  nghttp2_session* session_ = nullptr;
  WriteQueue out_;
  std::vector<Stream*> streams_;
  int32_t window_bytes_;
  size_t header_block_bytes_ = 0;  // of the one that is coming in
  size_t receiving_bytes_ = 0;     // held for messages that are not whole
  size_t unsent_bytes_ = 0;        // of answers
  int64_t last_read_ns_;
  int64_t last_ping_ns_ = 0;  // of the client's
  int ping_strikes_ = 0;
  bool awaits_pong_ = false;
  bool is_draining_ = false;
  bool is_over_age_ = false;
  Timer drain_timer_;
  Timer keepalive_timer_;
  Timer idle_timer_;
  Timer age_timer_;
  Timer handshake_timer_;
};

}  // namespace gristmill
