// SPDX-License-Identifier: Apache-2.0
// FreeList: finished objects, kept with what they have allocated for the next use.
//
// Thread-safety: none; one thread's own.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

namespace gristmill {

template <typename T>
class FreeList {
 public:
  /// Keeps at most `max_size` objects.
  explicit FreeList(size_t max_size) : max_size_(max_size) {}

  /// A new object if none is kept.
  std::unique_ptr<T> Take() {
    if (free_.empty()) return std::make_unique<T>();
    std::unique_ptr<T> object = std::move(free_.back());
    free_.pop_back();
    return object;
  }

  /// `object` is as the next user wants to find it.
  void Give(std::unique_ptr<T> object) {
    if (free_.size() < max_size_) free_.push_back(std::move(object));
  }

 private:
  const size_t max_size_;
  std::vector<std::unique_ptr<T>> free_;
};

}  // namespace gristmill
