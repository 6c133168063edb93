// SPDX-License-Identifier: Apache-2.0
// WriteQueue: bytes on their way into a socket, written with as few system calls as the kernel allows.
//
// Copies: small parts are copied together; large ones are written from where they lie, in buffers that the queue keeps
// until they are written. Thread-safety: none; one connection's own.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "core/buffer.h"

namespace gristmill {

enum class IoOutcome { kDone, kBlocked, kClosed };

class WriteQueue {
 public:
  void Append(std::span<const std::byte> bytes);

  /// Bytes of a buffer that is given to Keep before the caller lets go of it.
  void AppendView(std::span<const std::byte> bytes);
  void Keep(Buffer buffer) { kept_.push_back(std::move(buffer)); }

  size_t size_bytes() const { return size_bytes_; }

  /// Writes until the queue is empty or the socket takes no more.
  IoOutcome WriteTo(int fd);

  /// Hands each part to `take`, in order, and forgets them.
  template <typename Take>
  void TakeAll(Take take) {
    for (const Part& part : parts_) take(BytesOf(part));
    size_bytes_ = 0;
    Clear();
  }

 private:
  /// Of `small_` if `data` is null.
  struct Part {
    const std::byte* data;
    size_t offset;
    size_t size;
  };

  std::span<const std::byte> BytesOf(const Part& part) const {
    return {part.data != nullptr ? part.data : small_.data() + part.offset, part.size};
  }
  void Clear();

  std::vector<std::byte> small_;
  std::vector<Part> parts_;
  std::vector<Buffer> kept_;
  size_t first_part_ = 0;
  size_t written_of_part_ = 0;
  size_t size_bytes_ = 0;
};

}  // namespace gristmill
