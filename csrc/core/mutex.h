// SPDX-License-Identifier: Apache-2.0
// Mutex, MutexLock, CondVar: the standard ones, annotated so that clang proves at compile time that guarded members are
// only touched under their lock.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define GRISTMILL_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define GRISTMILL_THREAD_ANNOTATION(x)
#endif

#define CAPABILITY(name) GRISTMILL_THREAD_ANNOTATION(capability(name))
#define SCOPED_CAPABILITY GRISTMILL_THREAD_ANNOTATION(scoped_lockable)
#define GUARDED_BY(mutex) GRISTMILL_THREAD_ANNOTATION(guarded_by(mutex))
#define REQUIRES(...) GRISTMILL_THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
#define ACQUIRE(...) GRISTMILL_THREAD_ANNOTATION(acquire_capability(__VA_ARGS__))
#define RELEASE(...) GRISTMILL_THREAD_ANNOTATION(release_capability(__VA_ARGS__))

namespace gristmill {

class CAPABILITY("mutex") Mutex {
 public:
  void Lock() ACQUIRE() { mu_.lock(); }
  void Unlock() RELEASE() { mu_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mu_;
};

class SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) ACQUIRE(mutex) : mutex_(mutex) { mutex_.Lock(); }
  ~MutexLock() RELEASE() { mutex_.Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

class CondVar {
 public:
  void Wait(Mutex& mutex) REQUIRES(mutex) {
    std::unique_lock lock(mutex.mu_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }

  void WaitUntil(Mutex& mutex, std::chrono::steady_clock::time_point time) REQUIRES(mutex) {
    std::unique_lock lock(mutex.mu_, std::adopt_lock);
    condition_.wait_until(lock, time);
    lock.release();
  }

  void NotifyOne() { condition_.notify_one(); }
  void NotifyAll() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace gristmill
