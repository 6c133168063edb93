// SPDX-License-Identifier: Apache-2.0
// Shape and TensorView: a tensor as somebody else's bytes.
//
// Ownership: a TensorView borrows. Whoever hands one out says how long its bytes live.
// Layout: row-major, little-endian, no padding. A kBytes tensor is its elements one after another, each a little-endian
// uint32 length followed by that many bytes (the protocol's raw form).
// Thread-safety: plain values.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "core/data_type.h"

namespace gristmill {

/// The dimensions of a tensor, at most kMaxRank of them, stored in place. A dimension of -1 means "any size" in a
/// declaration and never appears in the shape of real data.
class Shape {
 public:
  static constexpr size_t kMaxRank = 8;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) {
    for (int64_t dim : dims) PushBack(dim);
  }
  explicit Shape(std::span<const int64_t> dims) {
    for (int64_t dim : dims) PushBack(dim);
  }

  /// Adds a dimension. False, and no change, when there are kMaxRank already.
  bool PushBack(int64_t dim) {
    if (rank_ == kMaxRank) return false;
    dims_[rank_++] = dim;
    return true;
  }
  void Clear() { rank_ = 0; }

  size_t rank() const { return rank_; }
  int64_t operator[](size_t i) const { return dims_[i]; }
  int64_t& operator[](size_t i) { return dims_[i]; }
  std::span<const int64_t> dims() const { return {dims_.data(), rank_}; }

  /// Product of the dimensions (1 for rank 0), or -1 if a dimension is negative or the product overflows int64.
  int64_t ElementCount() const;

  /// "[2,16]".
  std::string ToString() const;

  friend bool operator==(const Shape& a, const Shape& b) {
    if (a.rank_ != b.rank_) return false;
    for (size_t i = 0; i < a.rank_; ++i) {
      if (a.dims_[i] != b.dims_[i]) return false;
    }
    return true;
  }

 private:
  std::array<int64_t, kMaxRank> dims_{};
  size_t rank_ = 0;
};

struct TensorView {
  DataType dtype = DataType::kInvalid;
  Shape shape;
  std::span<const std::byte> data;
};

/// Walks the elements of raw kBytes data: calls `visit(std::span<const std::byte> element)` for each.
/// Returns the number of elements, or -1 when a length runs past the end.
template <typename Visit>
int64_t ForEachBytesElement(std::span<const std::byte> data, Visit&& visit) {
  int64_t count = 0;
  size_t at = 0;
  while (at < data.size()) {
    if (data.size() - at < 4) return -1;
    const uint32_t length = static_cast<uint32_t>(data[at]) | static_cast<uint32_t>(data[at + 1]) << 8 |
                            static_cast<uint32_t>(data[at + 2]) << 16 | static_cast<uint32_t>(data[at + 3]) << 24;
    at += 4;
    if (data.size() - at < length) return -1;
    visit(data.subspan(at, length));
    at += length;
    ++count;
  }
  return count;
}

}  // namespace gristmill
