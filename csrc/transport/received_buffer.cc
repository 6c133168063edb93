// SPDX-License-Identifier: Apache-2.0
#include "transport/received_buffer.h"

#include <cstring>
#include <utility>

namespace gristmill {

Status GrowReceived(size_t used_bytes, size_t size_bytes, BufferPool* buffers, Buffer* buffer) {
  Buffer larger = buffers->TryAcquire(size_bytes);
  if (larger.is_null()) {
    return ResourceExhausted("requests that are not answered yet fill the server's memory for them; retry later");
  }
  if (used_bytes > 0) std::memcpy(larger.data(), buffer->data(), used_bytes);
  *buffer = std::move(larger);
  return Status::Ok();
}

}  // namespace gristmill
