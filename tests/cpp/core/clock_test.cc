// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "core/fake_clock.h"

namespace gristmill {
namespace {

TEST(FakeClock, MovesOnlyWhenTold) {
  FakeClock clock;
  const int64_t start_ns = clock.NowNs();
  EXPECT_EQ(clock.NowNs(), start_ns);
  clock.Advance(5);
  EXPECT_EQ(clock.NowNs(), start_ns + 5);
}

TEST(FakeClock, WakesASleeperWhenItsTimeHasCome) {
  FakeClock clock;
  std::atomic<bool> awake{false};
  std::thread sleeper([&] {
    clock.SleepFor(100);
    awake = true;
  });
  clock.AwaitWaiters(1);
  clock.Advance(99);
  clock.AwaitWaiters(1);
  EXPECT_FALSE(awake);
  clock.Advance(1);
  sleeper.join();
  EXPECT_TRUE(awake);
}

TEST(FakeClock, WakesAWaiterWhenItsTimeHasCome) {
  FakeClock clock;
  Mutex mutex;
  CondVar condition;
  const int64_t until_ns = clock.NowNs() + 100;
  std::thread waiter([&] {
    MutexLock lock(mutex);
    while (clock.NowNs() < until_ns) clock.WaitUntil(condition, mutex, until_ns);
  });
  clock.AwaitWaiters(1);
  clock.Advance(100);
  waiter.join();
}

TEST(SystemClock, NeverGoesBackAndDoesNotWaitForThePast) {
  Clock& clock = SystemClock();
  const int64_t before_ns = clock.NowNs();
  Mutex mutex;
  CondVar condition;
  {
    MutexLock lock(mutex);
    clock.WaitUntil(condition, mutex, before_ns - 1);
  }
  clock.SleepFor(-1);
  EXPECT_GE(clock.NowNs(), before_ns);
  EXPECT_GT(clock.WallMs(), 1'700'000'000'000);  // after 2023
}

}  // namespace
}  // namespace gristmill
