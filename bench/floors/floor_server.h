// SPDX-License-Identifier: Apache-2.0
// gRPC unary calls over nghttp2 and epoll on one thread, for floors: nothing is validated, no limit is kept, and
// whatever goes wrong with a connection closes it.
//
// A Handler is called on the thread that runs FloorServer::Run. It answers a stream at once or later, but on that
// thread. Until it has answered, a stream is the handler's to read even if its client has gone.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "floor.h"
#include "nghttp2_header.h"

namespace floors {

struct Connection;

// One call. `body` is the gRPC frame as received; `reply`, a whole frame too, has to live until it is sent:
// `reply_storage` is there for replies that belong to one stream.
struct Stream {
  Connection* connection = nullptr;  // null: the client has gone
  int32_t id = 0;
  size_t place = 0;  // in connection->streams
  bool handed_over = false;
  bool answered = false;
  std::string body;
  std::string_view reply;
  std::string reply_storage;
};

struct Connection {
  int fd = -1;
  bool answered = false;  // since the last flush
  nghttp2_session* session = nullptr;
  std::vector<Stream*> streams;
  std::string output;
};

class Handler {
 public:
  virtual ~Handler() = default;
  // A call has arrived whole.
  virtual void OnRequest(Stream* stream) = 0;
  // All input that was there has been read.
  virtual void OnInputRead() {}
  // The descriptor given to FloorServer::Watch is readable.
  virtual void OnWakeUp() {}
};

// A gRPC frame around the content of a file. Ends the process if it cannot be read.
inline std::string ReadReply(const char* path) {
  const std::string message = ReadFile(path);
  const uint32_t length = htonl(static_cast<uint32_t>(message.size()));
  std::string frame(1, '\0');
  frame.append(reinterpret_cast<const char*>(&length), sizeof(length));
  return frame + message;
}

class FloorServer {
 public:
  // `handler` outlives the server.
  explicit FloorServer(Handler& handler) : handler_(handler), epoll_(epoll_create1(0)) {
    nghttp2_session_callbacks_new(&callbacks_);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks_, OnBeginHeaders);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks_, OnData);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks_, OnFrame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks_, OnStreamClose);
  }
  FloorServer(const FloorServer&) = delete;
  FloorServer& operator=(const FloorServer&) = delete;
  ~FloorServer() {
    nghttp2_session_callbacks_del(callbacks_);
    close(epoll_);
  }

  // Call Handler::OnWakeUp when `fd` is readable.
  void Watch(int fd) { Add(fd, &wake_up_tag_); }

  // Submit stream->reply; the connection sends it when it is next flushed. The stream is the server's again.
  void Answer(Stream* stream) {
    stream->answered = true;
    Connection* connection = stream->connection;
    if (connection == nullptr) {
      delete stream;
      return;
    }
    static const std::array<nghttp2_nv, 2> head = {Header(":status", "200"),
                                                   Header("content-type", "application/grpc")};
    nghttp2_data_provider provider{};
    provider.source.ptr = stream;
    provider.read_callback = ReadReplyOfStream;
    nghttp2_submit_response(connection->session, stream->id, head.data(), head.size(), &provider);
    if (!connection->answered) {
      connection->answered = true;
      answered_.push_back(connection);
    }
  }

  // Print the port and serve for ever. `port` 0 lets the system choose.
  [[noreturn]] void Run(uint16_t port) {
    Listen(port);
    std::array<epoll_event, 64> events;
    for (;;) {
      const int count = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), -1);
      for (int i = 0; i < count; ++i) {
        void* tag = events[static_cast<size_t>(i)].data.ptr;
        if (tag == &listener_) {
          Accept();
        } else if (tag == &wake_up_tag_) {
          handler_.OnWakeUp();
        } else if (!Read(static_cast<Connection*>(tag))) {
          Close(static_cast<Connection*>(tag));
        }
        FlushAnswered();
      }
      handler_.OnInputRead();
    }
  }

 private:
  static ssize_t ReadReplyOfStream(nghttp2_session* session, int32_t id, uint8_t* buffer, size_t size, uint32_t* flags,
                                   nghttp2_data_source* source, void*) {
    static const nghttp2_nv trailer = Header("grpc-status", "0");
    auto* stream = static_cast<Stream*>(source->ptr);
    const size_t count = std::min(size, stream->reply.size());
    std::memcpy(buffer, stream->reply.data(), count);
    stream->reply.remove_prefix(count);
    if (stream->reply.empty()) {
      *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
      nghttp2_submit_trailer(session, id, &trailer, 1);
    }
    return static_cast<ssize_t>(count);
  }

  static int OnBeginHeaders(nghttp2_session* session, const nghttp2_frame* frame, void* user_data) {
    auto* self = static_cast<FloorServer*>(user_data);
    auto* stream = new Stream;
    stream->connection = self->reading_;
    stream->id = frame->hd.stream_id;
    stream->place = self->reading_->streams.size();
    self->reading_->streams.push_back(stream);
    nghttp2_session_set_stream_user_data(session, stream->id, stream);
    return 0;
  }

  static int OnData(nghttp2_session* session, uint8_t, int32_t id, const uint8_t* data, size_t size, void*) {
    if (auto* stream = static_cast<Stream*>(nghttp2_session_get_stream_user_data(session, id))) {
      stream->body.append(reinterpret_cast<const char*>(data), size);
    }
    return 0;
  }

  static int OnFrame(nghttp2_session* session, const nghttp2_frame* frame, void* user_data) {
    if (frame->hd.type != NGHTTP2_DATA || (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return 0;
    auto* stream = static_cast<Stream*>(nghttp2_session_get_stream_user_data(session, frame->hd.stream_id));
    if (stream == nullptr) return 0;
    stream->handed_over = true;
    static_cast<FloorServer*>(user_data)->handler_.OnRequest(stream);
    return 0;
  }

  static int OnStreamClose(nghttp2_session* session, int32_t id, uint32_t, void*) {
    if (auto* stream = static_cast<Stream*>(nghttp2_session_get_stream_user_data(session, id))) Release(stream);
    return 0;
  }

  // Take a stream from its connection; delete it, or leave that to Answer.
  static void Release(Stream* stream) {
    std::vector<Stream*>& streams = stream->connection->streams;
    streams.back()->place = stream->place;
    streams[stream->place] = streams.back();
    streams.pop_back();
    stream->connection = nullptr;
    if (stream->answered || !stream->handed_over) delete stream;
  }

  void Listen(uint16_t port) {
    listener_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    if (bind(listener_, generic, size) != 0 || listen(listener_, 128) != 0) Die("cannot listen on the port");
    getsockname(listener_, generic, &size);
    std::printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    std::fflush(stdout);
    Add(listener_, &listener_);
  }

  void Add(int fd, void* tag) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = tag;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
  }

  void Accept() {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK);
    if (fd < 0) return;
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    auto* connection = new Connection;
    connection->fd = fd;
    nghttp2_session_server_new(&connection->session, callbacks_, this);
    const nghttp2_settings_entry limit = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 1000};
    nghttp2_submit_settings(connection->session, NGHTTP2_FLAG_NONE, &limit, 1);
    Add(fd, connection);
  }

  // False: the connection has ended.
  bool Read(Connection* connection) {
    const ssize_t size = read(connection->fd, input_.data(), input_.size());
    if (size < 0 && errno == EAGAIN) return true;
    if (size <= 0) return false;
    reading_ = connection;
    return nghttp2_session_mem_recv(connection->session, input_.data(), static_cast<size_t>(size)) >= 0 &&
           (connection->answered || Flush(connection));
  }

  void FlushAnswered() {
    for (Connection* connection : answered_) {
      connection->answered = false;
      // One that fails is closed when its end is read.
      Flush(connection);
    }
    answered_.clear();
  }

  // Send all that nghttp2 has to say, in one write where the socket takes it.
  static bool Flush(Connection* connection) {
    std::string& output = connection->output;
    output.clear();
    const uint8_t* data = nullptr;
    for (ssize_t size; (size = nghttp2_session_mem_send(connection->session, &data)) > 0;) {
      output.append(reinterpret_cast<const char*>(data), static_cast<size_t>(size));
    }
    std::string_view rest = output;
    while (!rest.empty()) {
      const ssize_t sent = send(connection->fd, rest.data(), rest.size(), MSG_NOSIGNAL);
      if (sent >= 0) {
        rest.remove_prefix(static_cast<size_t>(sent));
      } else if (errno == EAGAIN) {
        pollfd writable = {connection->fd, POLLOUT, 0};
        poll(&writable, 1, -1);
      } else {
        return false;
      }
    }
    return true;
  }

  void Close(Connection* connection) {
    std::erase(answered_, connection);
    close(connection->fd);
    while (!connection->streams.empty()) Release(connection->streams.back());
    nghttp2_session_del(connection->session);
    delete connection;
  }

  Handler& handler_;
  const int epoll_;
  int listener_ = -1;
  char wake_up_tag_ = 0;
  nghttp2_session_callbacks* callbacks_ = nullptr;
  Connection* reading_ = nullptr;
  std::vector<Connection*> answered_;
  std::array<uint8_t, 262144> input_{};
};

}  // namespace floors
