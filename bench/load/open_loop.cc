// SPDX-License-Identifier: Apache-2.0
// An open loop: unary gRPC calls sent when a schedule says so, however late the answers before them are.
//
//   open_loop PORT CONNECTIONS REQUEST SCHEDULE RESULTS [DEADLINE_US]
//
// REQUEST: a file with one gRPC frame. SCHEDULE: a file of int64, for each call when it is due, in nanoseconds from the
// start, ascending. RESULTS: the file to write, two int64 for each call: by how much it was sent late, and how long
// after it was due (not: after it was sent) it was answered, so that a server that stalls is charged for every call
// that it keeps waiting. Calls are dealt out to the connections in turn. With DEADLINE_US every call tells the server
// when it must be answered, and one that fails has -1 in place of the second figure.
//
// One thread, which never sleeps: it needs a core to itself. Without deadlines the process fails if a call fails.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "../floors/floor.h"
#include "../floors/nghttp2_header.h"

namespace {

using floors::Die;
using floors::Header;

constexpr std::string_view kPath = "/inference.GRPCInferenceService/ModelInfer";
// Without an answer for so long, the rest will not come.
constexpr int64_t kPatienceNs = 30'000'000'000;

int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

struct Call {
  int64_t due_ns = 0;
  int64_t sent_ns = 0;
  int64_t answered_ns = 0;
  size_t request_bytes = 0;  // that nghttp2 has taken
  bool ok = false;
};

class Connection {
 public:
  // `timeout`: as grpc-timeout has it; empty for none.
  Connection(uint16_t port, const std::string& request, const std::string& timeout, size_t* answered)
      : request_(request), timeout_(timeout), answered_(*answered) {
    Connect(port);
    nghttp2_session_callbacks* callbacks = nullptr;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, OnHeader);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, OnFrame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, OnStreamClose);
    nghttp2_session_client_new(&session_, callbacks, this);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, nullptr, 0);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() {
    nghttp2_session_del(session_);
    close(fd_);
  }

  int fd() const { return fd_; }
  // The server has said how many streams it takes.
  bool ready() const { return ready_; }

  void Send(Call* call) {
    static const std::array<nghttp2_nv, 7> head = {
        Header(":method", "POST"),         Header(":scheme", "http"), Header(":path", kPath),
        Header(":authority", "127.0.0.1"), Header("te", "trailers"),  Header("content-type", "application/grpc"),
        Header("grpc-timeout", timeout_)};
    nghttp2_data_provider provider{};
    provider.source.ptr = call;
    provider.read_callback = ReadRequest;
    if (nghttp2_submit_request(session_, nullptr, head.data(), head.size() - (timeout_.empty() ? 1 : 0), &provider,
                               call) < 0) {
      Die("nghttp2 refused a call");
    }
  }

  // Write what there is to say, as far as the socket takes it.
  void Flush() {
    for (;;) {
      if (unsent_.empty()) {
        output_.clear();
        const uint8_t* data = nullptr;
        for (ssize_t size; (size = nghttp2_session_mem_send(session_, &data)) > 0;) {
          output_.append(reinterpret_cast<const char*>(data), static_cast<size_t>(size));
        }
        if (output_.empty()) return;
        unsent_ = output_;
      }
      const ssize_t sent = send(fd_, unsent_.data(), unsent_.size(), MSG_NOSIGNAL);
      if (sent < 0 && errno == EAGAIN) return;
      if (sent < 0) Die("the server has closed a connection");
      unsent_.remove_prefix(static_cast<size_t>(sent));
    }
  }

  void Read() {
    static std::array<uint8_t, 262144> input;
    const ssize_t size = read(fd_, input.data(), input.size());
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) Die("the server has closed a connection");
    if (nghttp2_session_mem_recv(session_, input.data(), static_cast<size_t>(size)) < 0) Die("expected HTTP/2");
  }

 private:
  static ssize_t ReadRequest(nghttp2_session*, int32_t, uint8_t* buffer, size_t size, uint32_t* flags,
                             nghttp2_data_source* source, void* user_data) {
    const std::string& request = static_cast<Connection*>(user_data)->request_;
    auto* call = static_cast<Call*>(source->ptr);
    const size_t count = std::min(size, request.size() - call->request_bytes);
    std::memcpy(buffer, request.data() + call->request_bytes, count);
    call->request_bytes += count;
    if (call->request_bytes == request.size()) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return static_cast<ssize_t>(count);
  }

  static int OnHeader(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                      const uint8_t* value, size_t value_size, uint8_t, void*) {
    const std::string_view key(reinterpret_cast<const char*>(name), name_size);
    if (key != "grpc-status") return 0;
    auto* call = static_cast<Call*>(nghttp2_session_get_stream_user_data(session, frame->hd.stream_id));
    if (call != nullptr) call->ok = std::string_view(reinterpret_cast<const char*>(value), value_size) == "0";
    return 0;
  }

  static int OnFrame(nghttp2_session*, const nghttp2_frame* frame, void* user_data) {
    if (frame->hd.type == NGHTTP2_SETTINGS) static_cast<Connection*>(user_data)->ready_ = true;
    return 0;
  }

  static int OnStreamClose(nghttp2_session* session, int32_t id, uint32_t, void* user_data) {
    auto* call = static_cast<Call*>(nghttp2_session_get_stream_user_data(session, id));
    if (call == nullptr) return 0;
    auto* connection = static_cast<Connection*>(user_data);
    if (!call->ok && connection->timeout_.empty()) Die("a call was not answered with grpc-status 0");
    call->answered_ns = NowNs();
    ++connection->answered_;
    return 0;
  }

  void Connect(uint16_t port) {
    fd_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) Die("cannot connect to the port");
    const int on = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    fcntl(fd_, F_SETFL, O_NONBLOCK);
  }

  const std::string& request_;
  const std::string& timeout_;
  size_t& answered_;
  int fd_ = -1;
  bool ready_ = false;
  nghttp2_session* session_ = nullptr;
  std::string output_;
  std::string_view unsent_;  // of output_
};

class OpenLoop {
 public:
  OpenLoop(uint16_t port, size_t connections, std::string request, std::string timeout, std::vector<Call> calls)
      : request_(std::move(request)), timeout_(std::move(timeout)), calls_(std::move(calls)) {
    for (size_t i = 0; i < connections; ++i) {
      connections_.push_back(std::make_unique<Connection>(port, request_, timeout_, &answered_));
      polled_.push_back({connections_.back()->fd(), POLLIN, 0});
    }
  }

  // Of each call, by how much it was sent late and how long after it was due it was answered.
  std::vector<int64_t> Run() {
    const auto ready = [](const auto& connection) { return connection->ready(); };
    while (!std::ranges::all_of(connections_, ready)) Turn();
    const int64_t start_ns = NowNs();
    for (size_t sent = 0; answered_ < calls_.size();) {
      const int64_t now_ns = NowNs() - start_ns;
      for (; sent < calls_.size() && calls_[sent].due_ns <= now_ns; ++sent) {
        calls_[sent].sent_ns = now_ns;
        connections_[sent % connections_.size()]->Send(&calls_[sent]);
      }
      if (now_ns > calls_.back().due_ns + kPatienceNs) Die("some calls are not answered");
      Turn();
    }
    std::vector<int64_t> results;
    for (const Call& call : calls_) {
      results.push_back(call.sent_ns - call.due_ns);
      results.push_back(call.ok ? call.answered_ns - start_ns - call.due_ns : -1);
    }
    return results;
  }

 private:
  void Turn() {
    for (const auto& connection : connections_) connection->Flush();
    poll(polled_.data(), polled_.size(), 0);
    for (size_t i = 0; i < polled_.size(); ++i) {
      if (polled_[i].revents != 0) connections_[i]->Read();
    }
  }

  const std::string request_;
  const std::string timeout_;
  std::vector<Call> calls_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<pollfd> polled_;
  size_t answered_ = 0;
};

std::vector<Call> ReadSchedule(const char* path) {
  const std::string bytes = floors::ReadFile(path);
  std::vector<Call> calls(bytes.size() / sizeof(int64_t));
  for (size_t i = 0; i < calls.size(); ++i) {
    std::memcpy(&calls[i].due_ns, bytes.data() + i * sizeof(int64_t), sizeof(int64_t));
  }
  if (calls.empty()) Die("expected a schedule of at least one call");
  return calls;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6 && argc != 7) Die("expected the arguments PORT CONNECTIONS REQUEST SCHEDULE RESULTS [DEADLINE_US]");
  OpenLoop loop(static_cast<uint16_t>(std::atoi(argv[1])), static_cast<size_t>(std::atoi(argv[2])),
                floors::ReadFile(argv[3]), argc == 7 ? std::string(argv[6]) + "u" : std::string(),
                ReadSchedule(argv[4]));
  const std::vector<int64_t> results = loop.Run();
  std::ofstream file(argv[5], std::ios::binary);
  file.write(reinterpret_cast<const char*>(results.data()),
             static_cast<std::streamsize>(results.size() * sizeof(int64_t)));
  if (!file.flush()) Die(std::string("cannot write ") + argv[5]);
}
