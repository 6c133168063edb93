// SPDX-License-Identifier: Apache-2.0
// FakeClock: time that moves only when a test says so.
//
//   FakeClock clock;
//   clock.Advance(1'000'000);   // wakes every WaitUntil and SleepFor whose time has come
#pragma once

#include <set>
#include <utility>

#include "core/clock.h"

namespace gristmill {

class FakeClock final : public Clock {
 public:
  int64_t NowNs() const override {
    MutexLock lock(mu_);
    return now_ns_;
  }
  /// As if every thread had been busy all the time.
  int64_t ThreadCpuNs() const override { return NowNs(); }
  int64_t WallMs() const override { return NowNs() / 1'000'000; }

  void WaitUntil(CondVar& condition, Mutex& mutex, int64_t deadline_ns) override REQUIRES(mutex) {
    {
      MutexLock lock(mu_);
      if (deadline_ns <= now_ns_) return;
      waiters_.insert({&condition, &mutex});
      waiting_.NotifyAll();
    }
    condition.Wait(mutex);
    MutexLock lock(mu_);
    waiters_.erase(waiters_.find({&condition, &mutex}));
  }

  void SleepFor(int64_t duration_ns) override {
    MutexLock lock(mu_);
    const int64_t until_ns = now_ns_ + duration_ns;
    ++sleepers_;
    waiting_.NotifyAll();
    while (now_ns_ < until_ns) advanced_.Wait(mu_);
    --sleepers_;
  }

  /// Moves time forward and wakes whoever waits on it.
  void Advance(int64_t duration_ns) {
    std::multiset<Waiter> waiters;
    {
      MutexLock lock(mu_);
      now_ns_ += duration_ns;
      waiters = waiters_;
    }
    advanced_.NotifyAll();
    for (const Waiter& waiter : waiters) {
      // Taking the waiter's own lock means it is inside Wait, so the notification cannot be lost.
      MutexLock lock(*waiter.second);
      waiter.first->NotifyAll();
    }
  }

  /// Blocks until `count` threads are inside WaitUntil or SleepFor.
  void AwaitWaiters(size_t count) {
    MutexLock lock(mu_);
    while (waiters_.size() + sleepers_ < count) waiting_.Wait(mu_);
  }

 private:
  using Waiter = std::pair<CondVar*, Mutex*>;

  mutable Mutex mu_;
  CondVar waiting_;
  CondVar advanced_;
  int64_t now_ns_ GUARDED_BY(mu_) = 1'000'000'000;
  size_t sleepers_ GUARDED_BY(mu_) = 0;
  std::multiset<Waiter> waiters_ GUARDED_BY(mu_);
};

}  // namespace gristmill
