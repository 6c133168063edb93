// SPDX-License-Identifier: Apache-2.0
#include "engine/response_cache.h"

#include <gtest/gtest.h>

#include <thread>

#include "core/fake_clock.h"

namespace gristmill {
namespace {

/// Of the same shard, all of them.
CacheKey Key(uint64_t number) { return {.low = number, .high = 8}; }

std::shared_ptr<CachedAnswer> Answer(size_t bytes) {
  auto answer = std::make_shared<CachedAnswer>();
  answer->outputs.push_back({.index = 0, .dtype = DataType::kUint8, .shape = {}, .data = {}});
  const size_t rest = bytes - answer->SizeBytes();
  answer->outputs[0].data.resize(rest);
  return answer;
}

class ResponseCacheTest : public testing::Test {
 protected:
  FakeClock clock_;
  ResponseCache cache_{{.max_bytes = 8 * 1000}, &clock_};  // a shard has 1000
};

TEST_F(ResponseCacheTest, KeepsWhatWasUsedLast) {
  for (uint64_t i = 0; i < 2; ++i) cache_.Insert(Key(i), Answer(500), kNever);
  EXPECT_NE(cache_.Find(Key(0)), nullptr);
  cache_.Insert(Key(2), Answer(500), kNever);
  EXPECT_NE(cache_.Find(Key(0)), nullptr);
  EXPECT_EQ(cache_.Find(Key(1)), nullptr);
  EXPECT_NE(cache_.Find(Key(2)), nullptr);
  const ResponseCache::Usage usage = cache_.usage();
  EXPECT_EQ(usage.entries, 2u);
  EXPECT_EQ(usage.bytes, 1000u);
  EXPECT_EQ(usage.evictions, 1u);
}

TEST_F(ResponseCacheTest, KeepsNothingThatIsLargerThanAShard) {
  cache_.Insert(Key(0), Answer(600), kNever);
  cache_.Insert(Key(1), Answer(1001), kNever);
  EXPECT_NE(cache_.Find(Key(0)), nullptr);
  EXPECT_EQ(cache_.Find(Key(1)), nullptr);
  ResponseCache none({}, &clock_);
  none.Insert(Key(0), Answer(500), kNever);
  EXPECT_EQ(none.Find(Key(0)), nullptr);
}

TEST_F(ResponseCacheTest, ForgetsWhatHasExpired) {
  cache_.Insert(Key(0), Answer(500), clock_.NowNs() + 10);
  clock_.Advance(9);
  EXPECT_NE(cache_.Find(Key(0)), nullptr);
  clock_.Advance(1);
  EXPECT_EQ(cache_.Find(Key(0)), nullptr);
  EXPECT_EQ(cache_.usage().entries, 0u);
  EXPECT_EQ(cache_.usage().evictions, 0u);
}

TEST_F(ResponseCacheTest, TheNewestAnswerReplacesTheOldOne) {
  cache_.Insert(Key(0), Answer(500), kNever);
  const auto held = cache_.Find(Key(0));
  cache_.Insert(Key(0), Answer(400), kNever);
  EXPECT_EQ(cache_.Find(Key(0))->SizeBytes(), 400u);
  EXPECT_EQ(held->SizeBytes(), 500u);
  EXPECT_EQ(cache_.usage().bytes, 400u);
}

TEST_F(ResponseCacheTest, ServesSeveralThreads) {
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < 2000; ++i) {
        const CacheKey key{.low = i % 37, .high = i % 11};
        if (const auto found = cache_.Find(key)) {
          EXPECT_EQ(found->SizeBytes(), 400u);
        } else {
          cache_.Insert(key, Answer(400), kNever);
        }
        if (i % 100 == t) {
          EXPECT_LE(cache_.usage().bytes, 8000u);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace gristmill
