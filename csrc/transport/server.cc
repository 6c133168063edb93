// SPDX-License-Identifier: Apache-2.0
#include "transport/server.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

namespace gristmill {
namespace {

constexpr std::string_view kUnix = "unix:";

/// As gRPC writes addresses.
std::string PeerName(const sockaddr_storage& address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (address.ss_family == AF_INET) {
    const auto& ipv4 = reinterpret_cast<const sockaddr_in&>(address);
    inet_ntop(AF_INET, &ipv4.sin_addr, text.data(), text.size());
    return std::string("ipv4:") + text.data() + ":" + std::to_string(ntohs(ipv4.sin_port));
  }
  if (address.ss_family == AF_INET6) {
    const auto& ipv6 = reinterpret_cast<const sockaddr_in6&>(address);
    inet_ntop(AF_INET6, &ipv6.sin6_addr, text.data(), text.size());
    return std::string("ipv6:[") + text.data() + "]:" + std::to_string(ntohs(ipv6.sin6_port));
  }
  return std::string(kUnix);
}

int PortOf(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  if (address.ss_family == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
  if (address.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
  return 0;
}

Status CannotListen(const std::string& address, const char* why) {
  return Unavailable("cannot listen on " + address + ": " + why);
}

}  // namespace

class TransportServer::Listener final : public Watcher {
 public:
  Listener(TransportServer* server, int fd, std::shared_ptr<const TlsContext> tls)
      : server_(*server), fd_(fd), tls_(std::move(tls)) {
    pause_.owner = this;
    pause_.fire = [](Timer* timer) {
      auto* listener = static_cast<Listener*>(timer->owner);
      listener->Rewatch(EPOLLIN);
    };
  }
  ~Listener() override { Close(); }

  Status Watch() { return server_.loops_[0]->events.Watch(fd_, EPOLLIN, this); }

  void OnEvents(uint32_t) override {
    // A few at a time, so that a storm of connections does not keep the loop from those that it has.
    constexpr int kAtOnce = 16;
    for (int i = 0; i < kAtOnce; ++i) {
      sockaddr_storage address{};
      socklen_t size = sizeof address;
      const int fd = accept4(fd_, reinterpret_cast<sockaddr*>(&address), &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) {
        // Out of descriptors, say: the connection stays in the queue, and asking again at once would change nothing.
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR && errno != ECONNABORTED) Pause();
        return;
      }
      SetTcpOptions(fd);
      server_.Accepted(tls_ != nullptr ? tls_->Accept(fd) : std::make_unique<Socket>(fd), PeerName(address));
    }
  }

  /// On the loop's thread.
  void Stop() {
    if (fd_ < 0) return;
    server_.loops_[0]->events.timers().Clear(&pause_);
    server_.loops_[0]->events.Unwatch(fd_, this);
    Close();
  }

  void Close() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }

 private:
  static constexpr int64_t kPauseNs = 100'000'000;

  // They fail on a unix socket, which needs none of them.
  void SetTcpOptions(int fd) const {
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    // The kernel lets go of a client that takes no byte for so long, dead or not.
    const int64_t timeout_ms = server_.options_.transport.keepalive_timeout_ns / 1'000'000;
    if (timeout_ms > std::numeric_limits<int>::max()) return;
    const auto user_timeout_ms = static_cast<int>(timeout_ms);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof user_timeout_ms);
  }

  void Pause() {
    Rewatch(0);
    EventLoop& loop = server_.loops_[0]->events;
    loop.timers().Set(&pause_, loop.now_ns() + kPauseNs);
  }
  void Rewatch(uint32_t epoll_events) { server_.loops_[0]->events.Rewatch(fd_, epoll_events, this); }

  TransportServer& server_;
  int fd_;
  const std::shared_ptr<const TlsContext> tls_;
  Timer pause_;
};

TransportServer::TransportServer(ServerOptions options, Clock* clock, MakeHandlers make_handlers)
    : options_(options), clock_(*clock), make_handlers_(std::move(make_handlers)) {}

TransportServer::~TransportServer() { Stop(); }

Status TransportServer::Open() {
  const int loop_count = std::max(options_.io_threads, 1);
  const auto buffers = BufferPoolOptions::Limited(options_.max_received_bytes / static_cast<size_t>(loop_count));
  for (int i = 0; i < loop_count; ++i) {
    auto loop = std::make_unique<Loop>(&clock_, buffers);
    if (Status status = loop->events.Open(); !status.ok()) return status;
    loop->handlers = make_handlers_(&loop->events);
    loop->connections =
        std::make_unique<ConnectionSet>(&loop->events, &loop->buffers, loop->handlers.get(), options_.transport);
    loops_.push_back(std::move(loop));
  }
  return Status::Ok();
}

Status TransportServer::Listen(const std::string& address, int* port, std::shared_ptr<const TlsContext> tls) {
  int fd = -1;
  if (Status status = Bind(address, &fd, port); !status.ok()) return status;
  listeners_.push_back(std::make_unique<Listener>(this, fd, std::move(tls)));
  if (listen(fd, SOMAXCONN) != 0) return CannotListen(address, strerror(errno));
  return listeners_.back()->Watch();
}

Status TransportServer::Bind(const std::string& address, int* fd, int* port) const {
  *port = 0;
  const int on = 1;
  if (address.starts_with(kUnix)) {
    sockaddr_un path{.sun_family = AF_UNIX, .sun_path = {}};
    const std::string name = address.substr(kUnix.size());
    if (name.empty() || name.size() >= sizeof path.sun_path) return CannotListen(address, "expected unix:path");
    std::memcpy(path.sun_path, name.data(), name.size());
    unlink(name.c_str());  // what an earlier server left
    *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*fd >= 0 && bind(*fd, reinterpret_cast<sockaddr*>(&path), sizeof path) == 0) return Status::Ok();
    const int error = errno;
    if (*fd >= 0) close(*fd);
    return CannotListen(address, strerror(error));
  }
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return CannotListen(address, "expected host:port, [host]:port or unix:path");
  std::string host = address.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  const addrinfo hints{.ai_flags = AI_PASSIVE, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.empty() ? nullptr : host.c_str(), address.c_str() + colon + 1, &hints, &found);
      error != 0) {
    return CannotListen(address, gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, freeaddrinfo);
  int error = EADDRNOTAVAIL;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    *fd = socket(one->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*fd < 0) {
      error = errno;
      continue;
    }
    setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (options_.reuse_port) setsockopt(*fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    if (bind(*fd, one->ai_addr, one->ai_addrlen) == 0) {
      *port = PortOf(*fd);
      return Status::Ok();
    }
    error = errno;
    close(*fd);
  }
  return CannotListen(address, strerror(error));
}

void TransportServer::Accepted(std::unique_ptr<Socket> socket, std::string peer) {
  Loop& loop = *loops_[next_loop_++ % loops_.size()];
  if (&loop == loops_[0].get()) return loop.connections->Add(std::move(socket), std::move(peer));
  // std::function copies what it holds, and a socket has one owner.
  loop.events.Post([&loop, owner = std::make_shared<std::unique_ptr<Socket>>(std::move(socket)),
                    peer = std::move(peer)] { loop.connections->Add(std::move(*owner), peer); });
}

void TransportServer::Start() {
  started_ = true;
  for (const auto& loop : loops_) {
    loop->thread = std::thread([events = &loop->events] { events->Run(); });
    pthread_setname_np(loop->thread.native_handle(), "gristmill-io");
  }
}

void TransportServer::Drain() {
  if (!started_) return;
  loops_[0]->events.Post([this] {
    for (const auto& listener : listeners_) listener->Stop();
    // Posted from here, they come after every connection that this loop has handed over.
    for (const auto& loop : loops_) {
      loop->events.Post([connections = loop->connections.get()] { connections->Drain(); });
    }
  });
}

void TransportServer::Stop() {
  if (!started_ || std::exchange(stopped_, true)) return;
  loops_[0]->events.Post([this] {
    for (const auto& listener : listeners_) listener->Stop();
    for (const auto& loop : loops_) {
      ConnectionSet* connections = loop->connections.get();
      loop->events.Post([connections] { connections->CloseAll(); });
      loop->events.Stop([connections] { return connections->connections() == 0 && connections->calls() == 0; });
    }
  });
  for (const auto& loop : loops_) loop->thread.join();
}

size_t TransportServer::connections() const {
  size_t count = 0;
  for (const auto& loop : loops_) count += loop->connections->connections();
  return count;
}

size_t TransportServer::calls() const {
  size_t count = 0;
  for (const auto& loop : loops_) count += loop->connections->calls();
  return count;
}

}  // namespace gristmill
