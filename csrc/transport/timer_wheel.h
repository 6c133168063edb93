// SPDX-License-Identifier: Apache-2.0
// TimerWheel: many timers of which few ever fire. Setting and clearing one costs a few pointers.
//
// Thread-safety: none; one loop's own.
// Precision: a timer fires up to one tick (1 ms) late, never early.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/clock.h"

namespace gristmill {

/// Embedded in whatever waits. Unset when destroyed.
struct Timer {
  Timer() = default;
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  void (*fire)(Timer* timer) = nullptr;
  void* owner = nullptr;

 private:
  friend class TimerWheel;
  Timer* previous = nullptr;
  Timer* next = nullptr;
  int64_t due_ns = kNever;
  size_t slot = 0;
};

class TimerWheel {
 public:
  explicit TimerWheel(int64_t now_ns) : done_tick_(now_ns / kTickNs) {
    for (Timer& head : slots_) head.previous = head.next = &head;
  }

  /// Fires `timer` once `now_ns` of a later Advance is `due_ns` or more; replaces its earlier time. kNever clears it.
  void Set(Timer* timer, int64_t due_ns);
  void Clear(Timer* timer);

  /// Fires what is due. A timer may set and clear any timer while it fires.
  void Advance(int64_t now_ns);

  /// When Advance has to be called next, at the latest; kNever if no timer is set.
  int64_t NextNs() const;

 private:
  static constexpr int64_t kTickNs = 1'000'000;
  static constexpr size_t kSlots = 4096;  // one turn is 4 s; later timers stay for several turns

  void Unlink(Timer* timer);

  int64_t done_tick_;  // every slot up to it has been looked at
  std::array<Timer, kSlots> slots_;
  std::array<uint64_t, kSlots / 64> occupied_{};
};

}  // namespace gristmill
