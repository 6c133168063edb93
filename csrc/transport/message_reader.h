// SPDX-License-Identifier: Apache-2.0
// MessageReader: cuts the bytes of one direction of a call into gRPC messages, in pooled memory.
//
// Copies: one, of each byte into the message's buffer, and an eighth more as the buffer of a large one grows; a
// compressed message is decompressed from there.
// Memory: a message's buffer grows with what has arrived of it, not with what its prefix promises, so that a client has
// to send what it wants kept.
// Errors: kResourceExhausted for a message over the limit or when the pool has no more to give, kInternal for what is
// no message.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "core/buffer.h"
#include "core/status.h"
#include "transport/compression.h"

namespace gristmill {

/// Of every message: whether it is compressed, and its length.
inline constexpr size_t kMessagePrefixBytes = 5;

class MessageReader {
 public:
  /// `buffers` outlives the reader. `max_message_bytes`: 0 is no limit.
  MessageReader(BufferPool* buffers, size_t max_message_bytes) : buffers_(*buffers), max_bytes_(max_message_bytes) {}

  /// Of messages that say that they are compressed.
  void set_encoding(Encoding encoding) { encoding_ = encoding; }

  /// Takes bytes from the front of `*bytes` until a message is whole (`*message_is_whole`) or none are left. After an
  /// error the reader is not used again.
  Status Read(std::span<const std::byte>* bytes, bool* message_is_whole);

  /// The whole message.
  Buffer TakeMessage();

  /// Whether a message has begun and is not whole: no place for the stream to end.
  bool within_message() const { return prefix_bytes_ > 0; }
  /// Memory of the message that has begun.
  size_t held_bytes() const { return buffer_.size(); }
  /// What is still to come of it, as far as is known.
  size_t missing_bytes() const { return prefix_bytes_ == kMessagePrefixBytes ? size_ - received_ : 0; }

 private:
  Status BeginMessage();
  Status EndMessage();

  BufferPool& buffers_;
  const size_t max_bytes_;
  std::array<std::byte, kMessagePrefixBytes> prefix_{};
  size_t prefix_bytes_ = 0;
  Encoding encoding_ = Encoding::kIdentity;
  size_t size_ = 0;  // of the message as it is sent
  size_t received_ = 0;
  Buffer buffer_;
};

}  // namespace gristmill
