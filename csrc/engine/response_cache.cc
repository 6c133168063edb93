// SPDX-License-Identifier: Apache-2.0
#include "engine/response_cache.h"

#include <utility>

namespace gristmill {
namespace {

/// Of an entry's list and map nodes, about.
constexpr size_t kBytesPerEntry = 256;

}  // namespace

size_t CachedAnswer::SizeBytes() const {
  size_t size = kBytesPerEntry;
  for (const Output& output : outputs) size += sizeof output + output.data.size();
  return size;
}

ResponseCache::ResponseCache(ResponseCacheOptions options, Clock* clock)
    : max_shard_bytes_(options.max_bytes / kShards), clock_(*clock) {}

void ResponseCache::TakeOut(Shard* shard, Entries::iterator entry, Entries* out) {
  shard->bytes -= entry->bytes;
  shard->by_key.erase(entry->key);
  out->splice(out->end(), shard->entries, entry);
}

std::shared_ptr<const CachedAnswer> ResponseCache::Find(const CacheKey& key) {
  Entries expired;
  Shard& shard = ShardOf(key);
  MutexLock lock(shard.mu);
  const auto found = shard.by_key.find(key);
  if (found == shard.by_key.end()) return nullptr;
  if (found->second->expires_ns <= clock_.NowNs()) {
    TakeOut(&shard, found->second, &expired);
    return nullptr;
  }
  shard.entries.splice(shard.entries.begin(), shard.entries, found->second);
  return found->second->answer;
}

void ResponseCache::Insert(const CacheKey& key, std::shared_ptr<const CachedAnswer> answer, int64_t expires_ns) {
  const size_t bytes = answer->SizeBytes();
  if (bytes > max_shard_bytes_) return;
  Entries gone;
  Shard& shard = ShardOf(key);
  MutexLock lock(shard.mu);
  if (const auto old = shard.by_key.find(key); old != shard.by_key.end()) TakeOut(&shard, old->second, &gone);
  while (shard.bytes + bytes > max_shard_bytes_) {
    TakeOut(&shard, std::prev(shard.entries.end()), &gone);
    ++shard.evictions;
  }
  shard.entries.push_front({.key = key, .answer = std::move(answer), .bytes = bytes, .expires_ns = expires_ns});
  shard.by_key.emplace(key, shard.entries.begin());
  shard.bytes += bytes;
}

ResponseCache::Usage ResponseCache::usage() const {
  Usage usage;
  for (const Shard& shard : shards_) {
    MutexLock lock(shard.mu);
    usage.entries += shard.by_key.size();
    usage.bytes += shard.bytes;
    usage.evictions += shard.evictions;
  }
  return usage;
}

}  // namespace gristmill
