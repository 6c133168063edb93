// SPDX-License-Identifier: Apache-2.0
#include "transport/timer_wheel.h"

#include <algorithm>
#include <bit>

namespace gristmill {

void TimerWheel::Set(Timer* timer, int64_t due_ns) {
  Clear(timer);
  if (due_ns == kNever) return;
  // Rounded up, so that the slot is looked at only when its timers are due; one in the past goes with the next tick.
  const int64_t tick = std::max((due_ns + kTickNs - 1) / kTickNs, done_tick_ + 1);
  timer->slot = static_cast<size_t>(tick) % kSlots;
  timer->due_ns = due_ns;
  Timer& head = slots_[timer->slot];
  timer->previous = head.previous;
  timer->next = &head;
  head.previous->next = timer;
  head.previous = timer;
  occupied_[timer->slot / 64] |= uint64_t{1} << (timer->slot % 64);
}

void TimerWheel::Clear(Timer* timer) {
  if (timer->next != nullptr) Unlink(timer);
}

void TimerWheel::Unlink(Timer* timer) {
  timer->previous->next = timer->next;
  timer->next->previous = timer->previous;
  timer->previous = timer->next = nullptr;
  const Timer& head = slots_[timer->slot];
  if (head.next == &head) occupied_[timer->slot / 64] &= ~(uint64_t{1} << (timer->slot % 64));
}

void TimerWheel::Advance(int64_t now_ns) {
  const int64_t now_tick = now_ns / kTickNs;
  const int64_t first = std::max(done_tick_ + 1, now_tick - static_cast<int64_t>(kSlots) + 1);
  for (int64_t tick = first; tick <= now_tick; ++tick) {
    done_tick_ = tick;
    Timer& head = slots_[static_cast<size_t>(tick) % kSlots];
    // Those that stay are moved to the end, behind a mark, so that firing may change the list in any way.
    Timer mark;
    mark.slot = static_cast<size_t>(tick) % kSlots;
    mark.previous = head.previous;
    mark.next = &head;
    head.previous->next = &mark;
    head.previous = &mark;
    while (head.next != &mark) {
      Timer* timer = head.next;
      const int64_t due_ns = timer->due_ns;
      Unlink(timer);
      if (due_ns <= now_ns) {
        timer->fire(timer);
      } else {
        Set(timer, due_ns);
      }
    }
    Unlink(&mark);
  }
  done_tick_ = std::max(done_tick_, now_tick);
}

int64_t TimerWheel::NextNs() const {
  // The slots in the order in which Advance will look at them, a word at a time.
  const size_t start = static_cast<size_t>(done_tick_ + 1) % kSlots;
  for (size_t passed = 0; passed < kSlots;) {
    const size_t slot = (start + passed) % kSlots;
    const uint64_t rest = occupied_[slot / 64] >> (slot % 64);
    if (rest != 0) {
      passed += static_cast<size_t>(std::countr_zero(rest));
      if (passed < kSlots) return (done_tick_ + 1 + static_cast<int64_t>(passed)) * kTickNs;
      break;
    }
    passed += 64 - slot % 64;
  }
  return kNever;
}

}  // namespace gristmill
