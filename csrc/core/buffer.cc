// SPDX-License-Identifier: Apache-2.0
#include "core/buffer.h"

#include <sys/mman.h>

#include <bit>
#include <limits>
#include <new>
#include <utility>

namespace gristmill {
namespace {

constexpr std::align_val_t kAlignment{64};
// From here on the kernel is asked for pages of this size: a fault for each of 4 KiB costs as much as filling it.
constexpr size_t kHugePageBytes = 2 << 20;
constexpr size_t kSmallestCapacity = 256;

std::align_val_t AlignmentOf(size_t capacity) {
  return capacity < kHugePageBytes ? kAlignment : std::align_val_t{kHugePageBytes};
}

std::byte* Allocate(size_t capacity) {
  void* data = ::operator new(capacity, AlignmentOf(capacity));
  if (capacity >= kHugePageBytes) madvise(data, capacity, MADV_HUGEPAGE);  // a wish, which may be refused
  return static_cast<std::byte*>(data);
}

void Free(std::byte* data, size_t capacity) { ::operator delete(data, AlignmentOf(capacity)); }

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
  for (size_t i = 0; i < idle_.size(); ++i) {
    for (std::byte* data : idle_[i]) Free(data, kSmallestCapacity << i);
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
  Free(data, capacity);
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
