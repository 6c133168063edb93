// SPDX-License-Identifier: Apache-2.0
#include "transport/event_loop.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace gristmill {

EventLoop::EventLoop(Clock* clock) : clock_(*clock), timers_(clock->NowNs()), now_ns_(clock->NowNs()) {}

EventLoop::~EventLoop() {
  if (epoll_fd_ >= 0) close(epoll_fd_);
}

Status EventLoop::Open() {
  epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_fd_ < 0) return ResourceExhausted(std::string("cannot make an event loop: ") + strerror(errno));
  if (Status status = wake_.Open(); !status.ok()) return status;
  return Watch(wake_.fd(), EPOLLIN, nullptr);
}

void EventLoop::Run() {
  std::array<epoll_event, 256> events;
  while (!may_end_ || !may_end_()) {
    const int count = epoll_wait(epoll_fd_, events.data(), static_cast<int>(events.size()), TimeoutMs());
    now_ns_ = clock_.NowNs();
    for (int i = 0; i < count; ++i) {
      auto* watcher = static_cast<Watcher*>(events[static_cast<size_t>(i)].data.ptr);
      if (watcher == nullptr) {
        wake_.Clear();
      } else if (unwatched_.empty() || std::ranges::find(unwatched_, watcher) == unwatched_.end()) {
        watcher->OnEvents(events[static_cast<size_t>(i)].events);
      }
    }
    RunPosted();
    timers_.Advance(now_ns_);
    for (const auto& work : turn_ends_) work();
    unwatched_.clear();
    destroyed_later_.clear();
  }
}

void EventLoop::Stop(std::function<bool()> may_end) {
  Post([this, may_end = std::move(may_end)] { may_end_ = may_end; });
}

void EventLoop::Post(std::function<void()> work) {
  bool is_first = false;
  {
    MutexLock lock(mu_);
    is_first = posted_.empty();
    posted_.push_back(std::move(work));
  }
  if (is_first) wake_.Signal();
}

void EventLoop::RunPosted() {
  {
    MutexLock lock(mu_);
    running_.swap(posted_);
  }
  for (const auto& work : running_) work();
  running_.clear();
}

int EventLoop::TimeoutMs() const {
  const int64_t next_ns = timers_.NextNs();
  if (next_ns == kNever) return -1;
  constexpr int64_t kMsNs = 1'000'000;
  // Rounded up: waking before the tick would find nothing due.
  return static_cast<int>(std::clamp<int64_t>((next_ns - clock_.NowNs() + kMsNs - 1) / kMsNs, 0, 60'000));
}

Status EventLoop::Watch(int fd, uint32_t epoll_events, Watcher* watcher) {
  epoll_event event{.events = epoll_events, .data = {.ptr = watcher}};
  if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) == 0) return Status::Ok();
  return ResourceExhausted(std::string("cannot watch a descriptor: ") + strerror(errno));
}

void EventLoop::Rewatch(int fd, uint32_t epoll_events, Watcher* watcher) {
  epoll_event event{.events = epoll_events, .data = {.ptr = watcher}};
  epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, fd, &event);  // cannot fail for a descriptor that is watched
}

void EventLoop::Unwatch(int fd, Watcher* watcher) {
  epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr);
  unwatched_.push_back(watcher);
}

}  // namespace gristmill
