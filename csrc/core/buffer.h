// SPDX-License-Identifier: Apache-2.0
// Buffer and BufferPool: bytes that are reused instead of allocated anew for every request.
//
// Ownership: a Buffer owns its bytes and gives them back to its pool when destroyed; the pool must outlive its buffers.
// Thread-safety: BufferPool is thread-safe: a buffer may be acquired on one thread and released on another. A Buffer is
// a value for one thread at a time.
// Blocking: one short uncontended lock per acquire and release, never held while memory is allocated or freed.
// Memory: capacities are powers of two from 256 bytes, of which untouched pages cost nothing; at most
// `max_retained_bytes` lie idle in the pool, the rest is freed on release.
//
//   BufferPool pool({.max_retained_bytes = 64 << 20});
//   Buffer buffer = pool.Acquire(encoded_size);
//   Encode(response, buffer.data());
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/mutex.h"

namespace gristmill {

class BufferPool;

class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept { Swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer(std::move(other)).Swap(*this);
    return *this;
  }
  ~Buffer();

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  std::span<const std::byte> view() const { return {data_, size_}; }

  /// One that TryAcquire could not fill, or that nobody has acquired.
  bool is_null() const { return data_ == nullptr; }

  /// Forgets all but the first `size_bytes`.
  void Truncate(size_t size_bytes) { size_ = size_bytes < size_ ? size_bytes : size_; }

 private:
  friend class BufferPool;
  void Swap(Buffer& other) noexcept;

  BufferPool* pool_ = nullptr;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

struct BufferPoolOptions {
  /// Idle bytes kept for reuse. 0 keeps none.
  size_t max_retained_bytes = 64u << 20;
  /// Bytes that TryAcquire hands out at most. 0: no limit.
  size_t max_in_use_bytes = 0;

  /// Of a pool that may use as much, or any amount (0): a part of it is worth keeping.
  static BufferPoolOptions Limited(size_t max_in_use_bytes) {
    BufferPoolOptions options{.max_in_use_bytes = max_in_use_bytes};
    options.max_retained_bytes = std::max(options.max_retained_bytes, max_in_use_bytes / 16);
    return options;
  }
};

class BufferPool {
 public:
  explicit BufferPool(BufferPoolOptions options) : options_(options) {}
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  /// A buffer of `size_bytes` uninitialised bytes, aligned to 64.
  Buffer Acquire(size_t size_bytes);
  /// The same, or a null buffer if more than `max_in_use_bytes` would then be in use.
  Buffer TryAcquire(size_t size_bytes);

  /// Capacity of all buffers that are in use at this moment.
  size_t in_use_bytes() const;
  /// Bytes lying idle at this moment.
  size_t retained_bytes() const;

 private:
  friend class Buffer;
  static constexpr size_t kClasses = 48;

  Buffer Acquire(size_t size_bytes, size_t max_in_use_bytes);
  void Release(std::byte* data, size_t capacity);

  const BufferPoolOptions options_;
  mutable Mutex mu_;
  size_t in_use_bytes_ GUARDED_BY(mu_) = 0;
  size_t retained_bytes_ GUARDED_BY(mu_) = 0;
  std::array<std::vector<std::byte*>, kClasses> idle_ GUARDED_BY(mu_);
};

}  // namespace gristmill
