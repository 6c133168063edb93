// SPDX-License-Identifier: Apache-2.0
// EncodeInferResponse: an answer as a serialized inference.ModelInferResponse, byte for byte what protobuf would write.
//
// Copies: each output once, from the batch's output to its place in the message.
// Thread-safety: no state; the pool is thread-safe.
#pragma once

#include <cstddef>
#include <string_view>

#include "core/buffer.h"
#include "core/infer_request.h"

namespace gristmill {

/// Bytes that EncodeInto will write.
size_t EncodedSizeBytes(const InferResponse& response);

/// Writes the message to `out`, which has room for it, and returns the end of what was written.
std::byte* EncodeInto(const InferResponse& response, std::byte* out);

/// The message in a buffer of its exact size; null if the pool has no more to give.
Buffer EncodeInferResponse(const InferResponse& response, BufferPool* pool);

/// The same within an inference.ModelStreamInferResponse.
Buffer EncodeStreamInferResponse(const InferResponse& response, BufferPool* pool);

/// An inference.ModelStreamInferResponse with an error about the request of that id. Likewise.
Buffer EncodeStreamInferError(std::string_view message, std::string_view id, BufferPool* pool);

}  // namespace gristmill
