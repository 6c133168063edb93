// SPDX-License-Identifier: Apache-2.0
// A blocking HTTP/2 client on nghttp2 that can do what no gRPC client would.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "transport/grpc_frames.h"

namespace gristmill {

using HeaderList = std::vector<std::pair<std::string, std::string>>;

struct Reply {
  std::map<std::string, std::string> headers;  // trailers as well
  std::string body;
  bool closed = false;
  uint32_t error = 0;  // of RST_STREAM

  /// "" without a grpc-status.
  std::string status() const {
    const auto found = headers.find("grpc-status");
    return found == headers.end() ? "" : found->second;
  }
};

inline HeaderList GrpcHeaders(const std::string& path, HeaderList more = {}) {
  HeaderList headers = {{":method", "POST"},
                        {":scheme", "http"},
                        {":authority", "test"},
                        {":path", path},
                        {"content-type", "application/grpc"},
                        {"te", "trailers"}};
  headers.insert(headers.end(), more.begin(), more.end());
  return headers;
}

struct ClientOptions {
  SSL_CTX* tls = nullptr;          // null: plain text
  uint32_t window_bytes = 65'535;  // that each answer may send at once
};

class Http2Client {
 public:
  /// Throws if the server does not accept.
  explicit Http2Client(int port, const ClientOptions& options = {}) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) throw std::runtime_error("connect");
    const int on = 1;  // else its small frames wait for the server's acknowledgements
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (options.tls != nullptr) Handshake(options.tls);
    nghttp2_session_callbacks* callbacks = nullptr;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, OnHeader);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, OnData);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, OnClose);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, OnFrame);
    nghttp2_session_client_new(&session_, callbacks, this);
    nghttp2_session_callbacks_del(callbacks);
    const nghttp2_settings_entry window{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, options.window_bytes};
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, &window, 1);
  }
  ~Http2Client() {
    nghttp2_session_del(session_);
    SSL_free(tls_);
    close(fd_);
  }
  Http2Client(const Http2Client&) = delete;
  Http2Client& operator=(const Http2Client&) = delete;

  /// Begins a request; its body is sent as far as it goes, and ends there if `ends`.
  int32_t Begin(const HeaderList& headers, std::string body, bool ends = true) {
    std::vector<nghttp2_nv> list;
    for (const auto& [name, value] : headers) {
      list.push_back({reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
                      reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(), 0});
    }
    nghttp2_data_provider provider{};
    provider.read_callback = ReadBody;
    const int32_t id = nghttp2_submit_request(session_, nullptr, list.data(), list.size(), &provider, nullptr);
    bodies_[id] = {std::move(body), ends};
    Flush();
    return id;
  }

  void Send(int32_t id, const std::string& more, bool ends) {
    bodies_[id].bytes += more;
    bodies_[id].ends = ends;
    nghttp2_session_resume_data(session_, id);
    Flush();
  }

  void Reset(int32_t id) {
    nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
    Flush();
  }

  /// Reads until the stream has closed. Throws if the connection ends first.
  Reply Await(int32_t id) {
    while (!replies_[id].closed) {
      if (!ReadSome()) throw std::runtime_error("the connection ended");
    }
    return replies_[id];
  }

  /// Reads until `done` says so; false if the connection ended first.
  template <typename Done>
  bool ReadUntil(Done done) {
    while (!done()) {
      if (!ReadSome()) return done();
    }
    return true;
  }

  Reply Call(const HeaderList& headers, const std::string& body) { return Await(Begin(headers, body)); }

  /// Lets the answer of a stream go on.
  void OpenWindow(int32_t id, int32_t bytes) {
    nghttp2_submit_window_update(session_, NGHTTP2_FLAG_NONE, id, bytes);
    Flush();
  }
  /// What the server lets us send on a stream at this moment.
  int32_t WindowOf(int32_t id) { return nghttp2_session_get_stream_remote_window_size(session_, id); }

  /// Bytes that are no HTTP/2 of nghttp2's making.
  void SendRaw(const std::string& bytes) {
    Flush();
    (void)!SendBytes(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  }

  Reply& reply(int32_t id) { return replies_[id]; }
  bool has_goaway() const { return has_goaway_; }
  uint32_t goaway_error() const { return goaway_error_; }

 private:
  struct Body {
    std::string bytes;
    bool ends = true;
    size_t sent = 0;
  };

  static Http2Client* Self(void* user_data) { return static_cast<Http2Client*>(user_data); }

  static int OnHeader(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                      const uint8_t* value, size_t value_size, uint8_t, void* user_data) {
    Self(user_data)
        ->replies_[frame->hd.stream_id]
        .headers[std::string(reinterpret_cast<const char*>(name), name_size)] =
        std::string(reinterpret_cast<const char*>(value), value_size);
    return 0;
  }
  static int OnData(nghttp2_session*, uint8_t, int32_t id, const uint8_t* data, size_t size, void* user_data) {
    Self(user_data)->replies_[id].body.append(reinterpret_cast<const char*>(data), size);
    return 0;
  }
  static int OnClose(nghttp2_session*, int32_t id, uint32_t error, void* user_data) {
    Self(user_data)->replies_[id].closed = true;
    Self(user_data)->replies_[id].error = error;
    return 0;
  }
  static int OnFrame(nghttp2_session*, const nghttp2_frame* frame, void* user_data) {
    if (frame->hd.type == NGHTTP2_GOAWAY) {
      Self(user_data)->has_goaway_ = true;
      Self(user_data)->goaway_error_ = frame->goaway.error_code;
    }
    return 0;
  }
  static ssize_t ReadBody(nghttp2_session*, int32_t id, uint8_t* buffer, size_t size, uint32_t* flags,
                          nghttp2_data_source*, void* user_data) {
    Body& body = Self(user_data)->bodies_[id];
    const size_t count = std::min(size, body.bytes.size() - body.sent);
    std::memcpy(buffer, body.bytes.data() + body.sent, count);
    body.sent += count;
    if (body.sent == body.bytes.size() && body.ends) *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (count == 0 && !body.ends) return NGHTTP2_ERR_DEFERRED;
    return static_cast<ssize_t>(count);
  }

  void Handshake(SSL_CTX* context) {
    signal(SIGPIPE, SIG_IGN);  // of SSL_write, when the server has closed
    tls_ = SSL_new(context);
    SSL_set_fd(tls_, fd_);
    if (SSL_connect(tls_) == 1) return;
    SSL_free(tls_);
    close(fd_);
    throw std::runtime_error("the TLS handshake failed");
  }

  ssize_t SendBytes(const uint8_t* data, size_t size) {
    return tls_ != nullptr ? SSL_write(tls_, data, static_cast<int>(size)) : send(fd_, data, size, MSG_NOSIGNAL);
  }

  void Flush() {
    const uint8_t* data = nullptr;
    for (ssize_t size = 0; (size = nghttp2_session_mem_send(session_, &data)) > 0;) {
      for (ssize_t sent = 0; sent < size;) {
        const ssize_t count = SendBytes(data + sent, static_cast<size_t>(size - sent));
        if (count <= 0) return;  // the server has closed; what it said is still to be read
        sent += count;
      }
    }
  }

  bool ReadSome() {
    Flush();
    std::array<uint8_t, 65536> buffer;
    const ssize_t size = tls_ != nullptr ? SSL_read(tls_, buffer.data(), static_cast<int>(buffer.size()))
                                         : recv(fd_, buffer.data(), buffer.size(), 0);
    if (size <= 0) return false;
    if (nghttp2_session_mem_recv(session_, buffer.data(), static_cast<size_t>(size)) < 0) return false;
    Flush();
    return true;
  }

  int fd_;
  SSL* tls_ = nullptr;
  nghttp2_session* session_ = nullptr;
  std::map<int32_t, Body> bodies_;
  std::map<int32_t, Reply> replies_;
  bool has_goaway_ = false;
  uint32_t goaway_error_ = 0;
};

}  // namespace gristmill
