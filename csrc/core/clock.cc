// SPDX-License-Identifier: Apache-2.0
#include "core/clock.h"

#include <time.h>

#include <chrono>
#include <thread>

namespace gristmill {
namespace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

class RealClock final : public Clock {
 public:
  int64_t NowNs() const override {
    return duration_cast<nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }

  int64_t ThreadCpuNs() const override {
    timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
  }

  int64_t WallMs() const override {
    return duration_cast<milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  }

  void WaitUntil(CondVar& condition, Mutex& mutex, int64_t deadline_ns) override REQUIRES(mutex) {
    if (deadline_ns == kNever) {
      condition.Wait(mutex);
    } else {
      condition.WaitUntil(mutex, std::chrono::steady_clock::time_point(nanoseconds(deadline_ns)));
    }
  }

  void SleepFor(int64_t duration_ns) override {
    if (duration_ns > 0) std::this_thread::sleep_for(nanoseconds(duration_ns));
  }
};

}  // namespace

Clock& SystemClock() {
  static RealClock clock;
  return clock;
}

}  // namespace gristmill
