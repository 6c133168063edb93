// SPDX-License-Identifier: Apache-2.0
// EventLoop: one thread's epoll, timers and posted work.
//
// A turn: events of descriptors, posted work, timers, the ends of the turn in the order in which they were added.
// Thread-safety: Post and Stop from any thread; everything else on the loop's thread, or before Run.
// Blocking: Run, until Stop.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/clock.h"
#include "core/event_fd.h"
#include "core/mutex.h"
#include "core/status.h"
#include "transport/timer_wheel.h"

namespace gristmill {

/// Whatever waits on a descriptor.
class Watcher {
 public:
  virtual ~Watcher() = default;
  virtual void OnEvents(uint32_t epoll_events) = 0;
};

class EventLoop {
 public:
  /// `clock` outlives the loop.
  explicit EventLoop(Clock* clock);
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  /// kResourceExhausted if the process has no file descriptor left.
  Status Open();

  void Run();
  /// Run returns after the turn in which `may_end` first says yes.
  void Stop(std::function<bool()> may_end);
  /// Runs `work` on the loop's thread in one of its next turns.
  void Post(std::function<void()> work);

  /// `watcher` lives until Unwatch, and to the end of that turn.
  Status Watch(int fd, uint32_t epoll_events, Watcher* watcher);
  void Rewatch(int fd, uint32_t epoll_events, Watcher* watcher);
  void Unwatch(int fd, Watcher* watcher);

  void AtTurnEnd(std::function<void()> work) { turn_ends_.push_back(std::move(work)); }
  /// Destroys `object` after the turn, when no event of this turn can name it any more.
  void DestroyLater(std::unique_ptr<Watcher> object) { destroyed_later_.push_back(std::move(object)); }

  TimerWheel& timers() { return timers_; }
  /// When this turn's input was read.
  int64_t now_ns() const { return now_ns_; }

 private:
  void RunPosted();
  int TimeoutMs() const;

  Clock& clock_;
  TimerWheel timers_;
  int64_t now_ns_;
  int epoll_fd_ = -1;
  EventFd wake_;
  std::vector<std::function<void()>> turn_ends_;
  std::vector<std::function<void()>> running_;
  std::vector<std::unique_ptr<Watcher>> destroyed_later_;
  std::vector<Watcher*> unwatched_;  // in this turn
  std::function<bool()> may_end_;

  Mutex mu_;
  std::vector<std::function<void()>> posted_ GUARDED_BY(mu_);
};

}  // namespace gristmill
