// SPDX-License-Identifier: Apache-2.0
#include "backends/batch_io.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

namespace gristmill {

static_assert(std::endian::native == std::endian::little, "tensors are little-endian on the wire and in memory");

std::byte* AlignedBuffer::Reserve(size_t size_bytes) {
  if (bytes_ == nullptr || size_bytes > capacity_bytes_) {
    const size_t capacity_bytes = std::bit_ceil(std::max<size_t>(size_bytes, 64));
    bytes_.reset();
    capacity_bytes_ = 0;
    bytes_.reset(static_cast<std::byte*>(::operator new[](capacity_bytes, kAlignment)));
    capacity_bytes_ = capacity_bytes;
  }
  return bytes_.get();
}

Shape GatheredShape(const Batch& batch, size_t input) {
  Shape shape = batch.items.front().inputs[input].shape;
  if (batch.items.size() > 1) shape[0] = batch.total_rows;
  return shape;
}

TensorView GatherInput(const Batch& batch, size_t input, AlignedBuffer* buffer) {
  const TensorView& first = batch.items.front().inputs[input];
  if (batch.items.size() == 1 && !first.data.empty()) {
    const size_t alignment = std::max<size_t>(ElementSizeBytes(first.dtype), 1);
    if (reinterpret_cast<uintptr_t>(first.data.data()) % alignment == 0) return first;
  }
  size_t size_bytes = 0;
  for (const BatchItem& item : batch.items) size_bytes += item.inputs[input].data.size();
  std::byte* const begin = buffer->Reserve(size_bytes);
  std::byte* end = begin;
  for (const BatchItem& item : batch.items) end = std::ranges::copy(item.inputs[input].data, end).out;
  return {.dtype = first.dtype, .shape = GatheredShape(batch, input), .data = {begin, size_bytes}};
}

BatchOutput BytesOutput::Serialize(const Shape& shape, std::span<const std::byte> content,
                                   std::span<const size_t> element_offsets) {
  constexpr size_t kLengthBytes = sizeof(uint32_t);
  const size_t count = element_offsets.size();
  raw_.resize(content.size() + count * kLengthBytes);
  std::byte* at = raw_.data();
  for (size_t i = 0; i < count; ++i) {
    const size_t end = i + 1 < count ? element_offsets[i + 1] : content.size();
    const auto element = content.subspan(element_offsets[i], end - element_offsets[i]);
    const uint32_t length = static_cast<uint32_t>(element.size());
    std::memcpy(at, &length, kLengthBytes);
    at = std::ranges::copy(element, at + kLengthBytes).out;
  }
  const size_t rows = static_cast<size_t>(RowCount(shape));
  const size_t row_elements = rows == 0 ? 0 : count / rows;
  row_offsets_.resize(rows + 1);
  for (size_t row = 0; row < rows; ++row) {
    const size_t element = row * row_elements;
    row_offsets_[row] = element < count ? element_offsets[element] + element * kLengthBytes : raw_.size();
  }
  row_offsets_[rows] = raw_.size();
  return {.tensor = {.dtype = DataType::kBytes, .shape = shape, .data = raw_}, .row_offsets = row_offsets_};
}

BatchOutput BytesOutput::Index(const TensorView& raw) {
  const size_t rows = static_cast<size_t>(RowCount(raw.shape));
  const size_t row_elements = rows == 0 ? 0 : static_cast<size_t>(raw.shape.ElementCount()) / rows;
  row_offsets_.assign(rows + 1, raw.data.size());
  size_t element = 0;
  ForEachBytesElement(raw.data, [&](std::span<const std::byte> bytes) {
    if (element % row_elements == 0) {
      const std::byte* begin = bytes.data() - sizeof(uint32_t);
      row_offsets_[element / row_elements] = static_cast<size_t>(begin - raw.data.data());
    }
    ++element;
  });
  return {.tensor = raw, .row_offsets = row_offsets_};
}

}  // namespace gristmill
