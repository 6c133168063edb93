// SPDX-License-Identifier: Apache-2.0
// ResponseCache: answers of all models that are cached, by a hash of what they answer.
//
// Least recently used answers go when the bytes are used up. Thread-safety: thread-safe; entries are spread over shards
// with a lock each, held for a look-up and never while tensors are copied or freed. Ownership: an answer that has been
// handed out lives on after it has left the cache.
//
//   if (auto answer = cache.Find(key)) …
//   cache.Insert(key, std::move(answer), clock.NowNs() + ttl_ns);
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <unordered_map>
#include <vector>

#include "core/clock.h"
#include "core/mutex.h"
#include "core/tensor.h"

namespace gristmill {

/// 128 bits of a good hash: two different requests do not share one.
struct CacheKey {
  uint64_t low = 0;
  uint64_t high = 0;
  bool operator==(const CacheKey&) const = default;
};

struct CacheKeyHash {
  size_t operator()(const CacheKey& key) const { return static_cast<size_t>(key.low); }
};

/// Outputs with bytes of their own.
struct CachedAnswer {
  struct Output {
    uint32_t index = 0;  // among the model's outputs
    DataType dtype = DataType::kInvalid;
    Shape shape;
    std::vector<std::byte> data;
  };
  std::vector<Output> outputs;

  /// What it takes of the cache.
  size_t SizeBytes() const;
};

struct ResponseCacheOptions {
  /// Of all answers together. 0: none is kept.
  size_t max_bytes = 0;
};

class ResponseCache {
 public:
  /// `clock` outlives the cache.
  ResponseCache(ResponseCacheOptions options, Clock* clock);

  /// Null if it is not there, or has been for too long.
  std::shared_ptr<const CachedAnswer> Find(const CacheKey& key);

  /// Keeps an answer until `expires_ns`, unless it is larger than a shard may be.
  void Insert(const CacheKey& key, std::shared_ptr<const CachedAnswer> answer, int64_t expires_ns);

  struct Usage {
    uint64_t entries = 0;
    uint64_t bytes = 0;
    uint64_t evictions = 0;  // for want of room
  };
  Usage usage() const;

 private:
  static constexpr size_t kShards = 8;

  struct Entry {
    CacheKey key;
    std::shared_ptr<const CachedAnswer> answer;
    size_t bytes = 0;
    int64_t expires_ns = kNever;
  };
  using Entries = std::list<Entry>;  // the most recently used first
  struct Shard {
    mutable Mutex mu;
    Entries entries GUARDED_BY(mu);
    std::unordered_map<CacheKey, Entries::iterator, CacheKeyHash> by_key GUARDED_BY(mu);
    size_t bytes GUARDED_BY(mu) = 0;
    uint64_t evictions GUARDED_BY(mu) = 0;
  };

  Shard& ShardOf(const CacheKey& key) { return shards_[key.high % kShards]; }
  /// Moves an entry out, to be freed once the lock is.
  static void TakeOut(Shard* shard, Entries::iterator entry, Entries* out) REQUIRES(shard->mu);

  const size_t max_shard_bytes_;
  Clock& clock_;
  std::array<Shard, kShards> shards_;
};

}  // namespace gristmill
