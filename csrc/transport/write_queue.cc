// SPDX-License-Identifier: Apache-2.0
#include "transport/write_queue.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace gristmill {

void WriteQueue::Append(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  if (parts_.empty() || parts_.back().data != nullptr) parts_.push_back({nullptr, small_.size(), 0});
  small_.insert(small_.end(), bytes.begin(), bytes.end());
  parts_.back().size += bytes.size();
  size_bytes_ += bytes.size();
}

void WriteQueue::AppendView(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  parts_.push_back({bytes.data(), 0, bytes.size()});
  size_bytes_ += bytes.size();
}

IoOutcome WriteQueue::WriteTo(int fd) {
  while (size_bytes_ > 0) {
    std::array<iovec, 64> vectors;
    const size_t count = std::min(vectors.size(), parts_.size() - first_part_);
    for (size_t i = 0; i < count; ++i) {
      const Part& part = parts_[first_part_ + i];
      const size_t written = i == 0 ? written_of_part_ : 0;
      vectors[i] = {const_cast<std::byte*>(BytesOf(part).data()) + written, part.size - written};
    }
    msghdr message{};
    message.msg_iov = vectors.data();
    message.msg_iovlen = count;
    const ssize_t result = sendmsg(fd, &message, MSG_NOSIGNAL);
    if (result < 0) {
      if (errno == EINTR) continue;
      return errno == EAGAIN || errno == EWOULDBLOCK ? IoOutcome::kBlocked : IoOutcome::kClosed;
    }
    size_bytes_ -= static_cast<size_t>(result);
    written_of_part_ += static_cast<size_t>(result);
    while (first_part_ < parts_.size() && written_of_part_ >= parts_[first_part_].size) {
      written_of_part_ -= parts_[first_part_++].size;
    }
  }
  Clear();
  return IoOutcome::kDone;
}

void WriteQueue::Clear() {
  small_.clear();
  parts_.clear();
  kept_.clear();
  first_part_ = 0;
  written_of_part_ = 0;
}

}  // namespace gristmill
