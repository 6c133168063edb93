// SPDX-License-Identifier: Apache-2.0
// What fuzz targets hold parsers to.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <span>

#include "core/data_type.h"
#include "core/tensor.h"

namespace gristmill {

inline void Check(bool holds) {
  if (!holds) abort();
}

/// Its data is as long as its shape says.
inline void CheckSize(const TensorView& tensor) {
  const int64_t count = tensor.shape.ElementCount();
  Check(count >= 0);
  if (tensor.dtype == DataType::kBytes) {
    Check(ForEachBytesElement(tensor.data, [](std::span<const std::byte>) {}) == count);
  } else {
    Check(tensor.data.size() == static_cast<size_t>(count) * ElementSizeBytes(tensor.dtype));
  }
}

}  // namespace gristmill
