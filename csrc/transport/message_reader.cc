// SPDX-License-Identifier: Apache-2.0
#include "transport/message_reader.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "transport/received_buffer.h"

namespace gristmill {
namespace {

// Up to here memory is taken at once; beyond it, so many times what has arrived.
constexpr size_t kEagerBytes = 1 << 20;
constexpr size_t kGrowth = 8;

}  // namespace

Status MessageReader::Read(std::span<const std::byte>* bytes, bool* message_is_whole) {
  *message_is_whole = false;
  if (prefix_bytes_ < kMessagePrefixBytes) {
    const size_t count = std::min(kMessagePrefixBytes - prefix_bytes_, bytes->size());
    if (count > 0) std::memcpy(prefix_.data() + prefix_bytes_, bytes->data(), count);
    prefix_bytes_ += count;
    *bytes = bytes->subspan(count);
    if (prefix_bytes_ < kMessagePrefixBytes) return Status::Ok();
    if (Status status = BeginMessage(); !status.ok()) return status;
  }
  while (received_ < size_ && !bytes->empty()) {
    if (received_ == buffer_.size()) {
      const size_t larger = std::min(size_, received_ * kGrowth);
      if (Status status = GrowReceived(received_, larger, &buffers_, &buffer_); !status.ok()) return status;
    }
    const size_t count = std::min(buffer_.size() - received_, bytes->size());
    std::memcpy(buffer_.data() + received_, bytes->data(), count);
    received_ += count;
    *bytes = bytes->subspan(count);
  }
  if (received_ < size_) return Status::Ok();
  *message_is_whole = true;
  return EndMessage();
}

Buffer MessageReader::TakeMessage() {
  prefix_bytes_ = 0;
  received_ = 0;
  return std::exchange(buffer_, Buffer());
}

Status MessageReader::BeginMessage() {
  const auto flag = static_cast<uint8_t>(prefix_[0]);
  if (flag == 1 && encoding_ == Encoding::kIdentity) {
    return Internal("a message says that it is compressed, but there was no grpc-encoding header");
  }
  if (flag > 1) return Internal("expected a gRPC message with flag 0 or 1, got " + std::to_string(flag));
  size_ = 0;
  for (size_t i = 1; i < kMessagePrefixBytes; ++i) size_ = size_ << 8 | static_cast<size_t>(prefix_[i]);
  if (max_bytes_ > 0 && size_ > max_bytes_) {
    return ResourceExhausted("received message larger than max (" + std::to_string(size_) + " vs. " +
                             std::to_string(max_bytes_) + ")");
  }
  return GrowReceived(0, std::min(size_, kEagerBytes), &buffers_, &buffer_);
}

Status MessageReader::EndMessage() {
  if (prefix_[0] == std::byte{0}) return Status::Ok();
  const Buffer compressed = std::move(buffer_);
  return Decompress(encoding_, compressed.view(), max_bytes_, &buffers_, &buffer_);
}

}  // namespace gristmill
