// SPDX-License-Identifier: Apache-2.0
#include "core/buffer.h"

#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <thread>

#include "core/mutex.h"

namespace gristmill {
namespace {

TEST(BufferPool, HandsOutAlignedBuffersOfTheAskedSize) {
  BufferPool pool({});
  for (size_t size : {size_t{0}, size_t{1}, size_t{255}, size_t{256}, size_t{257}, size_t{1} << 20}) {
    Buffer buffer = pool.Acquire(size);
    EXPECT_EQ(buffer.size(), size);
    EXPECT_EQ(buffer.view().size(), size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
    if (size > 0) std::memset(buffer.data(), 1, size);
  }
}

TEST(BufferPool, ReusesWhatWasReleased) {
  BufferPool pool({});
  const std::byte* first = pool.Acquire(1000).data();
  EXPECT_EQ(pool.retained_bytes(), 1024u);
  const Buffer again = pool.Acquire(700);  // the same power of two
  EXPECT_EQ(again.data(), first);
  EXPECT_EQ(pool.retained_bytes(), 0u);
}

TEST(BufferPool, RetainsNoMoreThanItMay) {
  BufferPool pool({.max_retained_bytes = 1024});
  { Buffer a = pool.Acquire(1024), b = pool.Acquire(1024); }
  EXPECT_EQ(pool.retained_bytes(), 1024u);
}

TEST(BufferPool, GivesNoMoreThanItMayToThoseWhoTry) {
  BufferPool pool({.max_retained_bytes = 1 << 20, .max_in_use_bytes = 4096});
  Buffer first = pool.TryAcquire(3000);  // of which the capacity counts
  EXPECT_FALSE(first.is_null());
  EXPECT_EQ(pool.in_use_bytes(), 4096u);
  EXPECT_TRUE(pool.TryAcquire(1).is_null());
  EXPECT_FALSE(pool.Acquire(1).is_null());
  first = Buffer();
  EXPECT_EQ(pool.in_use_bytes(), 0u);
  EXPECT_FALSE(pool.TryAcquire(4096).is_null());
  EXPECT_TRUE(pool.TryAcquire(4097).is_null());
}

TEST(Buffer, MovesItsBytes) {
  BufferPool pool({});
  Buffer a = pool.Acquire(10);
  const std::byte* bytes = a.data();
  Buffer b = std::move(a);
  EXPECT_EQ(b.data(), bytes);
  Buffer c = pool.Acquire(5000);
  c = std::move(b);  // gives back what it had
  EXPECT_EQ(c.data(), bytes);
  EXPECT_EQ(pool.retained_bytes(), 8192u);
  c = Buffer();
  EXPECT_EQ(pool.retained_bytes(), 8192u + 256u);
}

TEST(BufferPool, PassesBuffersBetweenThreads) {
  BufferPool pool({});
  Mutex mutex;
  std::deque<Buffer> queue;
  constexpr int kCount = 5000;
  std::thread producer([&] {
    for (int i = 0; i < kCount; ++i) {
      Buffer buffer = pool.Acquire(static_cast<size_t>(i % 3000));
      MutexLock lock(mutex);
      queue.push_back(std::move(buffer));
    }
  });
  for (int taken = 0; taken < kCount;) {
    Buffer buffer;
    {
      MutexLock lock(mutex);
      if (queue.empty()) continue;
      buffer = std::move(queue.front());
      queue.pop_front();
    }
    EXPECT_EQ(buffer.size(), static_cast<size_t>(taken % 3000));
    ++taken;
  }
  producer.join();
}

}  // namespace
}  // namespace gristmill
