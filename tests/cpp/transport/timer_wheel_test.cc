// SPDX-License-Identifier: Apache-2.0
#include "transport/timer_wheel.h"

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <random>
#include <vector>

namespace gristmill {
namespace {

constexpr int64_t kStart = 1'000'000'000'123;
constexpr int64_t kMs = 1'000'000;

struct Probe {
  Timer timer;
  int fired = 0;
  std::function<void()> then = [] {};

  Probe() {
    timer.owner = this;
    timer.fire = [](Timer* fired_timer) {
      auto* probe = static_cast<Probe*>(fired_timer->owner);
      ++probe->fired;
      probe->then();
    };
  }
};

TEST(TimerWheel, FiresOnceAndNotBeforeItsTime) {
  TimerWheel wheel(kStart);
  Probe probe;
  EXPECT_EQ(wheel.NextNs(), kNever);
  wheel.Set(&probe.timer, kStart + 5 * kMs);
  EXPECT_GE(wheel.NextNs(), kStart + 5 * kMs);
  wheel.Advance(kStart + 5 * kMs - 1);
  EXPECT_EQ(probe.fired, 0);
  wheel.Advance(kStart + 6 * kMs);
  EXPECT_EQ(probe.fired, 1);
  wheel.Advance(kStart + 10'000 * kMs);
  EXPECT_EQ(probe.fired, 1);
  EXPECT_EQ(wheel.NextNs(), kNever);
}

TEST(TimerWheel, SetsAnewClearsAndTakesThePast) {
  TimerWheel wheel(kStart);
  Probe moved, cleared, past;
  wheel.Set(&moved.timer, kStart + 2 * kMs);
  wheel.Set(&moved.timer, kStart + 50 * kMs);
  wheel.Set(&cleared.timer, kStart + 2 * kMs);
  wheel.Clear(&cleared.timer);
  wheel.Clear(&cleared.timer);
  wheel.Set(&past.timer, kStart - 50 * kMs);
  wheel.Advance(kStart + 10 * kMs);
  EXPECT_EQ(moved.fired, 0);
  EXPECT_EQ(cleared.fired, 0);
  EXPECT_EQ(past.fired, 1);
  wheel.Set(&moved.timer, kNever);
  wheel.Advance(kStart + 100 * kMs);
  EXPECT_EQ(moved.fired, 0);
}

TEST(TimerWheel, KeepsTimersForSeveralTurns) {
  TimerWheel wheel(kStart);
  Probe probe;
  wheel.Set(&probe.timer, kStart + 60'000 * kMs);
  for (int64_t ms = 0; ms < 60'000; ms += 500) {
    wheel.Advance(kStart + ms * kMs);
    ASSERT_EQ(probe.fired, 0);
    ASSERT_NE(wheel.NextNs(), kNever);
  }
  wheel.Advance(kStart + 60'001 * kMs);
  EXPECT_EQ(probe.fired, 1);
}

TEST(TimerWheel, LetsATimerChangeOthersWhileItFires) {
  TimerWheel wheel(kStart);
  Probe first, second, again;
  first.then = [&] { wheel.Clear(&second.timer); };
  int times = 0;
  again.then = [&] {
    if (++times < 3) wheel.Set(&again.timer, kStart + (3 + times) * kMs);
  };
  for (Probe* probe : {&first, &second, &again}) wheel.Set(&probe->timer, kStart + 3 * kMs);
  wheel.Advance(kStart + 20 * kMs);
  EXPECT_EQ(first.fired, 1);
  EXPECT_EQ(second.fired, 0);
  EXPECT_EQ(again.fired, 3);
}

TEST(TimerWheel, AgreesWithAListOfTimes) {
  std::mt19937_64 random(3);
  TimerWheel wheel(kStart);
  struct Entry : Probe {
    int64_t due_ns = kNever;
  };
  std::vector<std::unique_ptr<Entry>> entries;
  for (int i = 0; i < 200; ++i) entries.push_back(std::make_unique<Entry>());
  int64_t now = kStart;
  for (int round = 0; round < 5'000; ++round) {
    Entry& entry = *entries[random() % entries.size()];
    if (random() % 3 == 0) {
      wheel.Clear(&entry.timer);
      entry.due_ns = kNever;
    } else {
      entry.due_ns = now + static_cast<int64_t>(random() % (9'000 * kMs));
      wheel.Set(&entry.timer, entry.due_ns);
    }
    entry.fired = 0;
    now += static_cast<int64_t>(random() % (40 * kMs));
    wheel.Advance(now);
    for (const auto& one : entries) {
      if (one->due_ns == kNever) continue;
      if (one->fired > 0) {
        ASSERT_EQ(one->fired, 1);
        ASSERT_LE(one->due_ns, now);
        one->due_ns = kNever;
        one->fired = 0;
      } else {
        ASSERT_GT(one->due_ns + kMs, now);
        ASSERT_LE(wheel.NextNs(), std::max(one->due_ns + kMs, now + kMs));
      }
    }
  }
}

}  // namespace
}  // namespace gristmill
