// SPDX-License-Identifier: Apache-2.0
// Gathering the items of a batch into one tensor per input, and putting strings into the protocol's raw form: what
// every backend that runs on the CPU shares.
//
// Ownership: buffers belong to an instance and are reused by each of its batches; they grow and never shrink.
// Thread-safety: one thread at a time, the instance's.
//
//   AlignedBuffer buffer;
//   TensorView input = GatherInput(batch, 0, &buffer);
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <span>
#include <vector>

#include "core/backend.h"
#include "core/tensor.h"

namespace gristmill {

/// Uninitialised bytes, aligned to 64.
class AlignedBuffer {
 public:
  /// Room for `size_bytes`, never null. What was there before is lost when the buffer has to grow.
  std::byte* Reserve(size_t size_bytes);

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(std::byte* bytes) const { ::operator delete[](bytes, kAlignment); }
  };

  std::unique_ptr<std::byte[], Free> bytes_;
  size_t capacity_bytes_ = 0;
};

/// Rows of a tensor: its first dimension, or 1 for rank 0.
inline int64_t RowCount(const Shape& shape) { return shape.rank() == 0 ? 1 : shape[0]; }

/// The shape of the batch's input number `input`: the first item's, with the rows of all items.
Shape GatheredShape(const Batch& batch, size_t input);

/// The items' tensors for input number `input`, one after another along the first dimension. A lone item is viewed
/// where it lies when its data is aligned to its element size; everything else is copied into `buffer`. The view lasts
/// as long as the item's data and the buffer's content do; its data pointer is never null.
TensorView GatherInput(const Batch& batch, size_t input, AlignedBuffer* buffer);

/// One kBytes output, in buffers that are reused from batch to batch.
class BytesOutput {
 public:
  /// From elements lying one after another in `content`, element i beginning at `element_offsets[i]`. One offset per
  /// element of `shape`. The result lasts until the next call.
  BatchOutput Serialize(const Shape& shape, std::span<const std::byte> content,
                        std::span<const size_t> element_offsets);

  /// From a tensor in raw form, which is not copied. Its element count must be right.
  BatchOutput Index(const TensorView& raw);

 private:
  std::vector<std::byte> raw_;
  std::vector<size_t> row_offsets_;
};

}  // namespace gristmill
