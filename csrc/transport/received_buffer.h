// SPDX-License-Identifier: Apache-2.0
// GrowReceived: memory for what a client sends, within what the pool may hand out.
#pragma once

#include <cstddef>

#include "core/buffer.h"
#include "core/status.h"

namespace gristmill {

/// Makes `buffer` one of `size_bytes` that begins with the first `used_bytes` of what it was.
/// Errors: kResourceExhausted when the pool has no more to give; `buffer` then stays as it is.
Status GrowReceived(size_t used_bytes, size_t size_bytes, BufferPool* buffers, Buffer* buffer);

}  // namespace gristmill
