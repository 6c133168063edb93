// SPDX-License-Identifier: Apache-2.0
#include "core/buffer.h"

#include <bit>
#include <limits>
#include <new>
#include <utility>

namespace gristmill {
namespace {

constexpr std::align_val_t kAlignment{64};
constexpr size_t kSmallestCapacity = 256;

std::byte* Allocate(size_t capacity) { return static_cast<std::byte*>(::operator new(capacity, kAlignment)); }
void Free(std::byte* data) { ::operator delete(data, kAlignment); }

size_t ClassOf(size_t capacity) { return static_cast<size_t>(std::bit_width(capacity / kSmallestCapacity) - 1); }

}  // namespace

Buffer::~Buffer() {
  if (data_ != nullptr) pool_->Release(data_, capacity_);
}

void Buffer::Swap(Buffer& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(capacity_, other.capacity_);
}

BufferPool::~BufferPool() {
  for (auto& list : idle_) {
    for (std::byte* data : list) Free(data);
  }
}

Buffer BufferPool::Acquire(size_t size_bytes) { return Acquire(size_bytes, std::numeric_limits<size_t>::max()); }

Buffer BufferPool::TryAcquire(size_t size_bytes) {
  const size_t limit = options_.max_in_use_bytes;
  return Acquire(size_bytes, limit > 0 ? limit : std::numeric_limits<size_t>::max());
}

Buffer BufferPool::Acquire(size_t size_bytes, size_t max_in_use_bytes) {
  const size_t capacity = std::bit_ceil(size_bytes < kSmallestCapacity ? kSmallestCapacity : size_bytes);
  Buffer buffer;
  {
    MutexLock lock(mu_);
    if (capacity > max_in_use_bytes || in_use_bytes_ > max_in_use_bytes - capacity) return buffer;
    in_use_bytes_ += capacity;
    auto& list = idle_.at(ClassOf(capacity));
    if (!list.empty()) {
      buffer.data_ = list.back();
      list.pop_back();
      retained_bytes_ -= capacity;
    }
  }
  if (buffer.data_ == nullptr) buffer.data_ = Allocate(capacity);
  buffer.pool_ = this;
  buffer.size_ = size_bytes;
  buffer.capacity_ = capacity;
  return buffer;
}

void BufferPool::Release(std::byte* data, size_t capacity) {
  {
    MutexLock lock(mu_);
    in_use_bytes_ -= capacity;
    if (retained_bytes_ + capacity <= options_.max_retained_bytes) {
      idle_.at(ClassOf(capacity)).push_back(data);
      retained_bytes_ += capacity;
      return;
    }
  }
  Free(data);
}

size_t BufferPool::in_use_bytes() const {
  MutexLock lock(mu_);
  return in_use_bytes_;
}

size_t BufferPool::retained_bytes() const {
  MutexLock lock(mu_);
  return retained_bytes_;
}

}  // namespace gristmill
