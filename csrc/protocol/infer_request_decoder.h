// SPDX-License-Identifier: Apache-2.0
// DecodeInferRequest: a serialized inference.ModelInferRequest as names, shapes and views on the received bytes.
//
// Ownership: everything decoded points into request->received or request->decoded.
// Copies: raw contents, and packed FP32, FP64 and BOOL contents, are viewed where they lie. Other typed contents have
// no raw form on the wire and are written into buffers from the pool. Thread-safety: one request on one thread; the
// pool is thread-safe. Errors: kInvalidArgument, naming model, tensor, expected and actual, for whatever protobuf or
// the inference protocol forbids; kUnimplemented for request features that this server does not serve. What the model
// itself expects is checked later, by the engine.
#pragma once

#include "core/buffer.h"
#include "core/infer_request.h"
#include "core/status.h"

namespace gristmill {

/// `request->received` and `arrival_ns` are set; fills the decoder's part of the request.
Status DecodeInferRequest(InferRequest* request, BufferPool* pool);

}  // namespace gristmill
