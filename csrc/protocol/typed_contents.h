// SPDX-License-Identifier: Apache-2.0
// Typed tensor contents: the elements of an InferTensorContents message as raw row-major bytes.
#pragma once

#include <span>
#include <vector>

#include "core/buffer.h"
#include "core/status.h"
#include "core/tensor.h"

namespace gristmill {

/// Decodes the `contents` fields of a serialized InferInputTensor into `tensor->data`, whose dtype and shape are set.
/// A view on `input_message` where the wire form is the raw form; otherwise a buffer appended to `decoded`.
/// Messages do not name the tensor; the caller, who knows it, does.
Status DecodeTypedContents(std::span<const std::byte> input_message, BufferPool* pool, std::vector<Buffer>* decoded,
                           TensorView* tensor);

}  // namespace gristmill
