// SPDX-License-Identifier: Apache-2.0
// Clock: the only source of time in csrc, handed down from the entry point.
//
// Thread-safety: thread-safe. Ownership: a clock outlives everything it is given to.
// Blocking: WaitUntil and SleepFor block; a FakeClock's return when a test moves its time forward.
#pragma once

#include <cstdint>
#include <limits>

#include "core/mutex.h"

namespace gristmill {

/// A time that never comes: "no deadline".
inline constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

class Clock {
 public:
  virtual ~Clock() = default;

  /// Nanoseconds on a clock that never goes back.
  virtual int64_t NowNs() const = 0;

  /// Nanoseconds of CPU that the calling thread has used. A system call.
  virtual int64_t ThreadCpuNs() const = 0;

  /// Milliseconds since the Unix epoch, for people and statistics.
  virtual int64_t WallMs() const = 0;

  /// Waits on `condition` until notified or until NowNs() >= deadline_ns; may wake early, as condition variables do.
  virtual void WaitUntil(CondVar& condition, Mutex& mutex, int64_t deadline_ns) REQUIRES(mutex) = 0;

  /// Blocks the calling thread for `duration_ns`; not at all when that is 0 or negative.
  virtual void SleepFor(int64_t duration_ns) = 0;
};

/// The machine's clock. Lives as long as the process.
Clock& SystemClock();

}  // namespace gristmill
