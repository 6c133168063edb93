// SPDX-License-Identifier: Apache-2.0
// FakeClock: time that moves only when a test says so.
//
//   FakeClock clock;
//   clock.Advance(1'000'000);   // wakes every WaitUntil and SleepFor whose time has come
#pragma once

#include <condition_variable>
#include <mutex>
#include <set>

#include "core/clock.h"

namespace gristmill {

class FakeClock final : public Clock {
 public:
  int64_t NowNs() const override {
    std::lock_guard lock(mu_);
    return now_ns_;
  }
  int64_t WallMs() const override { return NowNs() / 1'000'000; }

  void WaitUntil(std::condition_variable& condition, std::unique_lock<std::mutex>& lock, int64_t deadline_ns) override {
    {
      std::lock_guard guard(mu_);
      if (deadline_ns <= now_ns_) return;
      waiters_.insert({&condition, lock.mutex()});
      waiting_.notify_all();
    }
    condition.wait(lock);
    std::lock_guard guard(mu_);
    waiters_.erase(waiters_.find({&condition, lock.mutex()}));
  }

  void SleepFor(int64_t duration_ns) override {
    std::unique_lock lock(mu_);
    const int64_t until_ns = now_ns_ + duration_ns;
    ++sleepers_;
    waiting_.notify_all();
    advanced_.wait(lock, [&] { return now_ns_ >= until_ns; });
    --sleepers_;
  }

  /// Moves time forward and wakes whoever waits on it.
  void Advance(int64_t duration_ns) {
    std::multiset<Waiter> waiters;
    {
      std::lock_guard lock(mu_);
      now_ns_ += duration_ns;
      waiters = waiters_;
    }
    advanced_.notify_all();
    for (const Waiter& waiter : waiters) {
      // Taking the waiter's own lock means it is inside wait(), so the notification cannot be lost.
      std::lock_guard lock(*waiter.second);
      waiter.first->notify_all();
    }
  }

  /// Blocks until `count` threads are inside WaitUntil or SleepFor.
  void AwaitWaiters(size_t count) {
    std::unique_lock lock(mu_);
    waiting_.wait(lock, [&] { return waiters_.size() + sleepers_ >= count; });
  }

 private:
  using Waiter = std::pair<std::condition_variable*, std::mutex*>;

  mutable std::mutex mu_;
  std::condition_variable waiting_;
  std::condition_variable advanced_;
  int64_t now_ns_ = 1'000'000'000;
  size_t sleepers_ = 0;
  std::multiset<Waiter> waiters_;
};

}  // namespace gristmill
